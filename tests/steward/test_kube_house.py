"""Plan, apply and undo on a Kubernetes cluster through the command line, over the API server in memory."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from actions.kube_state import CONTRACT
from fleet.batch import Batch
from fleet.clock import FixedClock, SystemClock
from fleet.errors import SourceFailed, StaleState
from fleet.tables import POD_ALLOCATION
from steward.cli import app
from steward.config import load_settings
from steward.kube_house import contexts_of, gpus_known
from store.store import Store
from tests.kube.answers import Object
from tests.kube.faults import Fault
from tests.kube.server import KubeServer, serving

pytestmark = pytest.mark.enable_socket
KUBE_CONFIG = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"  # read when the library is imported
SETTINGS = '[collect]\nsources = ["kubernetes"]\ncontexts = ["east"]\n[actions.modes]\nfence = "propose"\n'
BAD = "GPU-n1-0"


def fill(store: Store, now: datetime) -> None:
    """Store a node of 8 GPUs that work, of which the first has just had an error it could not contain."""
    uuids = [f"GPU-n1-{place}" for place in range(8)]
    seen = {"cluster": "east", "node": "n1", "model": "H100", "first_seen_at": now - timedelta(days=3)}
    gpus = [
        {"gpu_uuid": uuid, "uuid": uuid, "gpu_index": place, "last_seen_at": now, **seen}
        for place, uuid in enumerate(uuids)
    ]
    samples = [
        {"gpu_uuid": uuid, "ts": now - timedelta(minutes=place), "utilization": 0.5}
        for uuid in uuids
        for place in range(1, 30)
    ]
    event = {"ts": now - timedelta(minutes=1), "gpu_uuid": BAD, "kind": "xid", "code": 95, "source": "kmsg"}
    frames = {
        "gpu": pl.DataFrame(gpus, schema_overrides={"gpu_index": pl.Int16}),
        "gpu_sample": pl.DataFrame(samples, schema_overrides={"utilization": pl.Float32}),
        "event": pl.DataFrame([{**event, "cluster": "east", "node": "n1"}], schema_overrides={"code": pl.Int32}),
    }
    store.append(Batch("test", frames, now))


@dataclass
class Site:
    """The server, and the command line over a store beside it."""

    kube: KubeServer
    folder: Path

    def steward(self, *arguments: str) -> Object:
        where = ["--config", str(self.folder / "steward.toml"), "--store", str(self.folder / "s.duckdb")]
        result = CliRunner().invoke(app, [*where, *arguments, "-o", "json"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        body: Object = json.loads(result.stdout)
        return body

    def node(self) -> Object:
        return self.kube.api.storage.objects["nodes.", "", "n1"]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(KUBE_CONFIG, str(tmp_path / "config"))
    (tmp_path / "steward.toml").write_text(SETTINGS)
    kube = KubeServer()
    kube.seed({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gpu-steward"}})
    ready = [{"type": "Ready", "status": "True"}]
    status = {"allocatable": {"nvidia.com/gpu": "8"}, "conditions": ready}
    meta = {"name": "n1", "labels": {CONTRACT: "true"}}
    kube.seed({"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {}, "status": status})
    kube.seed({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gpu-steward"}})
    with Store.open(tmp_path / "s.duckdb", clock=SystemClock()) as store:
        fill(store, datetime.now(UTC))
    with serving(kube, tmp_path / "config"):
        yield Site(kube, tmp_path)


def test_a_failing_gpu_is_planned_rehearsed_fenced_and_given_back(site: Site) -> None:
    before = site.node()
    planned = site.steward("plan")
    assert [(each["kind"], each["target"], each["cluster"]) for each in planned["items"]] == [
        ("fence_gpu", "Node/n1", "east")
    ]
    assert site.node() == before, "a plan changes nothing"
    rehearsed = site.steward("apply")
    assert [(each["stage"], each["dry_run"]) for each in rehearsed["items"]] == [("applied", True)]
    assert site.node() == before, "a rehearsal changes nothing"
    made = site.steward("apply", "--yes")
    assert [each["stage"] for each in made["items"]] == ["intended", "applied"]
    assert site.node()["metadata"]["annotations"] == {"gpusteward.dev/fenced": BAD}
    again = site.steward("apply", "--yes")
    assert ["skipped: already applied" in each["detail"] for each in again["items"]] == [True]
    undone = site.steward("undo", planned["items"][0]["plan_id"], "--yes")
    assert [each["stage"] for each in undone["items"]][:2] == ["intended", "applied"]
    assert not site.node()["metadata"].get("annotations")
    assert not site.node()["spec"].get("taints")


def test_where_only_the_whole_node_could_be_kept_free_the_budget_counts_it_whole(site: Site) -> None:
    site.kube.seed({**site.node(), "metadata": {"name": "n1"}})
    planned = site.steward("plan")
    assert planned["items"] == []
    assert any("8 of the 8 GPUs of pool" in told for told in planned["summary"]["held_back"]), planned["summary"]


def test_a_node_that_changed_after_the_plan_is_left_alone(site: Site) -> None:
    site.steward("plan")
    site.kube.seed({**site.node(), "spec": {"unschedulable": True}})
    before = site.node()
    with pytest.raises(StaleState, match="no longer of this world"):
        site.steward("apply", "--yes")
    assert site.node() == before


def test_without_the_right_to_write_a_move_is_refused_in_the_servers_words(site: Site) -> None:
    site.steward("plan")
    site.kube.faults.add(Fault("PATCH /api/v1/nodes", status=403, times=9))
    rehearsed = site.steward("apply")
    assert [(each["stage"], "403" in each["detail"]) for each in rehearsed["items"]] == [("refused", True)]


def test_a_cluster_that_does_not_answer_gives_no_plan_and_is_told(site: Site) -> None:
    site.kube.faults.add(Fault("GET /api/v1/nodes", status=403, times=9))
    with pytest.raises(SourceFailed, match="no cluster could be read"):
        site.steward("plan")
    with Store.open(site.folder / "s.duckdb", clock=SystemClock()) as store:
        told = store.read("source_failure").filter(pl.col("source") == "east")
    assert "403" in told.get_column("reason")[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ('sources = ["simulator"]\ncontexts = ["east"]', []),
        ('sources = ["kubernetes"]\ncluster = "lab"', [("lab", None)]),
        ('sources = ["kubernetes"]\ncontexts = ["east", "west"]', [("east", "east"), ("west", "west")]),
    ],
    ids=["none", "simulated", "current", "named"],
)
def test_clusters_are_those_that_are_followed(
    text: str, expected: list[tuple[str, str | None]], tmp_path: Path
) -> None:
    (tmp_path / "s.toml").write_text(f"[collect]\n{text}\n")
    assert contexts_of(load_settings(tmp_path / "s.toml", {}).collect) == expected


def test_what_a_pod_holds_is_told_by_uuid_and_part(clock: FixedClock) -> None:
    with Store.open(None, clock=clock) as store:
        fill(store, clock.now())
        keys = dict(store.read("gpu").select("uuid", "gpu").iter_rows())
        base = {"cluster": "east", "namespace": "team", "starts_at": clock.now() - timedelta(hours=1), "fraction": 1.0}
        rows = [
            {**base, "pod": "two", "pod_uid": "u2", "gpu": keys["GPU-n1-1"]},
            {**base, "pod": "two", "pod_uid": "u2", "gpu": keys["GPU-n1-2"]},
            {**base, "pod": "half", "pod_uid": "u1", "gpu": keys["GPU-n1-3"], "fraction": 0.5},
            {**base, "pod": "over", "pod_uid": "u0", "gpu": keys["GPU-n1-4"], "ends_at": clock.now()},
        ]
        store.append_stored("pod_allocation", pl.DataFrame(rows, schema=POD_ALLOCATION.schema()))
        known = gpus_known(store, "east", clock)
        assert [gpu.uuid for gpu in known.gpus] == [f"GPU-n1-{place}" for place in range(8)]
        held = {uid: (each.gpu_uuids, each.fraction) for uid, each in known.held.items()}
        assert held == {"u2": (("GPU-n1-1", "GPU-n1-2"), 1.0), "u1": (("GPU-n1-3",), 0.5)}
        clock.move(timedelta(days=8))
        assert gpus_known(store, "east", clock).gpus == ()
