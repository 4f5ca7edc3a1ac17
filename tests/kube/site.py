"""A cluster in memory whose clock stands still, with a store and the sources that read the one into the other."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from collectors.cluster_source import ClusterSource, Pace
from fleet.batch import Trouble
from fleet.clock import FixedClock
from steward.compose import close_sources, known_of
from store.store import Store
from tests.kube.answers import Object
from tests.kube.server import KubeServer, serving

KUBE_CONFIG = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"  # read when the library is imported
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
PACE = Pace(patience_s=10, between_s=600)


def text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Site:
    """A cluster in memory whose clock stands still, a store, and sources that read the one into the other."""

    kube: KubeServer
    clock: FixedClock
    store: Store
    ours: FixedClock
    sources: list[ClusterSource] = field(default_factory=list)

    def source(self, pace: Pace = PACE) -> ClusterSource:
        self.sources.append(ClusterSource(self.ours, "east", "east", lambda: known_of(self.store, "east"), pace))
        return self.sources[-1]

    def turn(self, source: ClusterSource) -> tuple[Trouble, ...]:
        troubles: tuple[Trouble, ...] = ()
        for batch in source.collect(None, self.ours.now()):
            self.store.append(batch)
            troubles = batch.troubles
        return troubles

    def run(self, name: str, gpus: int = 1, node: str = "n1", uid: str | None = None) -> Object:
        """Let a pod run since now."""
        conditions = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": text(self.clock.now())}]
        containers = [{"name": "main", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}]
        return self.kube.seed({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "team", "uid": uid or f"uid-{name}"},
            "spec": {"nodeName": node, "containers": containers},
            "status": {"phase": "Running", "conditions": conditions},
        })  # fmt: skip

    def drop(self, name: str) -> None:
        self.kube.api.storage.drop(("pods.", "team", name))

    def later(self, minutes: float = 1) -> datetime:
        self.clock.move(timedelta(minutes=minutes))
        self.ours.move(timedelta(minutes=minutes))
        return self.clock.now()

    def intervals(self) -> dict[str, tuple[datetime | None, datetime | None]]:
        """Return start and end by pod; a pod told twice fails here."""
        rows = self.store.read("pod").to_dicts()
        assert len(rows) == len({row["pod_uid"] for row in rows})
        return {row["pod"]: (row["starts_at"], row["ends_at"]) for row in rows}


@contextmanager
def standing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Give a cluster of one node and the namespace of one workspace."""
    monkeypatch.setattr(KUBE_CONFIG, str(tmp_path / "config"))
    monkeypatch.setattr("collectors.cluster._FIRST_WAIT_S", 0.001)
    clock, ours = FixedClock(NOW), FixedClock(NOW)
    kube = KubeServer(clock.now)
    team = {"name": "team", "labels": {"gpusteward.dev/workspace": "research"}}
    kube.seed({"apiVersion": "v1", "kind": "Namespace", "metadata": team})
    labels = {"nvidia.com/gpu.count": "8", "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    status = {"capacity": {"nvidia.com/gpu": "8"}}
    kube.seed({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": labels}, "status": status})
    with Store.open(None, clock=ours) as store, serving(kube, tmp_path / "config"):
        site = Site(kube, clock, store, ours)
        yield site
        kube.faults.stop.set()
        close_sources(site.sources)
