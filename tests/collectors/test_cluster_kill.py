"""A collector killed -9 while a cluster changes: the next one leaves no gap, no duplicate and nothing open."""

import os
import random
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from collectors.cluster_source import ClusterSource, Pace
from fleet.clock import SystemClock
from steward.compose import known_of
from store.store import Store
from tests.kube.server import KubeServer, serving

COLLECTOR = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from collectors.cluster_source import ClusterSource, Pace
from fleet.clock import SystemClock
from steward.compose import known_of
from store.store import Store
store = Store.open(Path(sys.argv[1]), clock=SystemClock())
source = ClusterSource(SystemClock(), "east", "east", lambda: known_of(store, "east"), Pace(20, 0.05))
while True:
    for batch in source.collect(None, datetime.now(UTC)):
        store.append(batch)
    print("turned", flush=True)
"""


def pod(number: int) -> dict[str, object]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {"type": "PodScheduled", "status": "True", "lastTransitionTime": now}
    containers = [{"name": "m", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": f"p{number}", "namespace": "default", "uid": f"u{number}"},
        "spec": {"nodeName": "n1", "containers": containers},
        "status": {"phase": "Running", "conditions": [condition]},
    }  # fmt: skip


def kill_one(path: Path, config: Path, kube: KubeServer, rng: random.Random, first: int) -> int:
    """Change pods while a collector turns, kill it at a random moment; return the number of the next pod."""
    environment = {**os.environ, "KUBECONFIG": str(config)}
    command = [sys.executable, "-c", COLLECTOR, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as collector:  # noqa: S603
        assert collector.stdout is not None
        for _ in range(rng.randrange(2, 5)):
            assert collector.stdout.readline() == "turned\n"
            for number in range(first, first + 5):
                kube.seed(pod(number))
            if first >= 5:
                kube.api.storage.drop(("pods.", "default", f"p{first - 5 + rng.randrange(5)}"))
            first += 5
        for _ in range(rng.randrange(400_000)):  # a random part of a turn
            pass
        collector.kill()
    return first


@pytest.mark.slow
@pytest.mark.enable_socket
def test_a_collector_killed_again_and_again_tells_every_interval_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, path, rng, made = tmp_path / "config", tmp_path / "steward.duckdb", random.Random(11), 0  # noqa: S311 - a seed, not a secret
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(config))
    kube = KubeServer()
    with serving(kube, config):
        for _ in range(6):
            made = kill_one(path, config, kube, rng, made)
            if rng.random() < 0.5:
                kube.api.storage.compact()
        with Store.open(path, clock=SystemClock()) as store:
            source = ClusterSource(SystemClock(), "east", "east", lambda: known_of(store, "east"), Pace())
            for batch in source.collect(None, datetime.now(UTC)):
                store.append(batch)
            source.close()
            rows = {row["pod_uid"]: row for row in store.read("pod").to_dicts()}
            assert store.read("pod").height == len(rows)
    there = {key[2]: each for key, each in kube.api.storage.objects.items() if key[0] == "pods."}
    assert {row["pod"] for row in rows.values() if row["ends_at"] is None} == set(there)
    for name, each in there.items():
        (bound,) = each["status"]["conditions"]
        assert rows[f"u{name[1:]}"]["starts_at"] == datetime.fromisoformat(bound["lastTransitionTime"])
    assert all(row["ends_at"] >= row["starts_at"] for row in rows.values() if row["ends_at"] is not None)
