"""The Kubernetes source turn by turn: over the API server in memory, and over the cluster that KUBECONFIG names."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from collectors.cluster_source import ClusterSource, Pace
from fleet.batch import Batch
from fleet.clock import FixedClock, SystemClock
from fleet.errors import SourceUnavailable
from steward.compose import known_of
from store.store import Store
from tests.kube.arrange import Arranger, bound_at
from tests.kube.client import Client, real_cluster
from tests.kube.server import KubeServer, serving

pytestmark = pytest.mark.enable_socket
KUBE_CONFIG = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"  # read when the library is imported
PACE = Pace(patience_s=20, between_s=600)


@dataclass
class Place:
    """A cluster to arrange, a store, and the source under test."""

    arrange: Arranger
    store: Store

    @property
    def workspace(self) -> str:
        """The workspace of this test's namespace: nobody else's on a cluster that others use too."""
        return f"ws-{self.arrange.namespace}"

    def source(self) -> ClusterSource:
        return ClusterSource(SystemClock(), "east", None, lambda: known_of(self.store, "east"), PACE)

    def turn(self, source: ClusterSource) -> Batch:
        last = Batch("none")
        for batch in source.collect(None, datetime.now(UTC)):
            self.store.append(batch)
            last = batch
        return last

    def look(self) -> Batch:
        source = self.source()
        try:
            return self.turn(source)
        finally:
            source.close()

    def rows(self, table: str) -> dict[str, dict[str, object]]:
        """Return the rows of this test's namespace and nodes by name."""
        frame = self.store.read(table)
        if "namespace" in frame.columns:
            frame = frame.filter(pl.col("namespace") == self.arrange.namespace)
        return {str(row[table]): row for row in frame.to_dicts()}


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.cluster)])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    namespace = f"steward-{uuid.uuid4().hex[:8]}"
    with Store.open(None, clock=SystemClock()) as store:
        if request.param == "real":
            arrange = Arranger(Client(real_cluster()), namespace).open(f"ws-{namespace}")
            yield Place(arrange, store)
            arrange.close()
            return
        monkeypatch.setattr(KUBE_CONFIG, str(tmp_path / "config"))
        with serving(KubeServer(), tmp_path / "config"):
            arrange = Arranger(Client(str(tmp_path / "config")), namespace).open(f"ws-{namespace}")
            yield Place(arrange, store)
            arrange.close()


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_a_pod_is_an_interval_from_its_binding_to_its_containers_end_to_the_second(place: Place) -> None:
    arrange = place.arrange
    arrange.node(f"{arrange.namespace}-n1")
    arrange.pod("waits", 8)
    arrange.pod("runs", 2)
    running = arrange.start("runs", f"{arrange.namespace}-n1")
    source = place.source()
    place.turn(source)
    rows = place.rows("pod")
    assert (rows["waits"]["starts_at"], rows["waits"]["node"], rows["waits"]["gpus"]) == (None, None, 8.0)
    assert (rows["runs"]["starts_at"], rows["runs"]["ends_at"]) == (moment(bound_at(running)), None)
    assert (rows["runs"]["workspace"], rows["runs"]["workload_kind"], rows["runs"]["workload"]) == (
        place.workspace, "Pod", "runs",
    )  # fmt: skip
    arrange.finish("runs", "2031-01-02T03:04:05Z")
    place.turn(source)
    source.close()
    row = place.rows("pod")["runs"]
    assert (row["ends_at"], row["phase"]) == (moment("2031-01-02T03:04:05Z"), "Succeeded")
    assert place.store.read("pod").height == place.store.read("pod").get_column("pod_uid").n_unique()


def test_a_pod_that_came_and_went_between_two_turns_is_told_whole(place: Place) -> None:
    arrange, node = place.arrange, f"{place.arrange.namespace}-n1"
    arrange.node(node)
    source = place.source()
    place.turn(source)
    arrange.pod("short", 4)
    started = arrange.start("short", node)
    arrange.finish("short", "2031-01-02T03:04:05Z", "Failed")
    arrange.remove("short")
    place.turn(source)
    source.close()
    row = place.rows("pod")["short"]
    assert (row["starts_at"], row["ends_at"]) == (moment(bound_at(started)), moment("2031-01-02T03:04:05Z"))


def test_a_pod_deleted_while_no_collector_ran_is_closed_by_the_next_one(place: Place) -> None:
    arrange, node = place.arrange, f"{place.arrange.namespace}-n1"
    arrange.node(node)
    for name in ("stays", "goes"):
        arrange.pod(name)
        arrange.start(name, node)
    place.look()
    arrange.remove("goes")
    place.look()
    place.look()
    rows = place.rows("pod")
    assert rows["stays"]["ends_at"] is None
    assert isinstance(rows["goes"]["ends_at"], datetime)
    assert len(rows) == 2


def test_owners_are_followed_up_to_the_top_and_the_rest_is_named_as_it_is(place: Place) -> None:
    arrange = place.arrange
    deployment = arrange.owned("apps/v1", "deployments", "Deployment", "serve")
    replicas = arrange.owned("apps/v1", "replicasets", "ReplicaSet", "serve-1", deployment)
    job = arrange.owned("batch/v1", "jobs", "Job", "train")
    foreign: dict[str, Any] = {
        "apiVersion": "nowhere.test/v1", "kind": "Robot", "metadata": {"name": "r2", "uid": str(uuid.uuid4())},
    }  # fmt: skip
    gone = arrange.owned("batch/v1", "jobs", "Job", "gone")
    owners: dict[str, dict[str, Any] | None] = {"a": replicas, "b": job, "c": foreign, "e": None, "d": gone}
    for name, owner in owners.items():
        arrange.pod(name, 1, owner, is_held=owner is gone)
    arrange.client.delete(arrange.path("jobs", "gone", "apis/batch/v1"), propagationPolicy="Background")
    place.look()
    arrange.let_go("d")
    rows = place.rows("pod")
    assert {name: (row["workload_kind"], row["workload"]) for name, row in rows.items()} == {
        "a": ("Deployment", "serve"), "b": ("Job", "train"), "c": ("Robot", "r2"), "d": ("Job", "gone"),
        "e": ("Pod", "e"),
    }  # fmt: skip


def test_devices_of_resource_claims_are_told_with_their_uuids(place: Place) -> None:
    arrange = place.arrange
    node, claims = f"{arrange.namespace}-n1", "apis/resource.k8s.io/v1"
    arrange.node(node)
    selectors = [
        {
            "cel": {
                "expression": "device.driver == 'gpu.nvidia.com' && device.attributes['gpu.nvidia.com'].type == 'gpu'"
            }
        }
    ]
    arrange.client.create(f"/{claims}/deviceclasses", {"metadata": {"name": node}, "spec": {"selectors": selectors}})
    arrange.made.append(f"/{claims}/deviceclasses/{node}")
    attributes = {"type": {"string": "gpu"}, "uuid": {"string": "GPU-1"}, "productName": {"string": "NVIDIA H100"}}
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    slice_ = {
        "driver": "gpu.nvidia.com",
        "nodeName": node,
        "pool": pool,
        "devices": [{"name": "gpu-0", "attributes": attributes}],
    }
    arrange.client.create(f"/{claims}/resourceslices", {"metadata": {"name": node}, "spec": slice_})
    arrange.made.append(f"/{claims}/resourceslices/{node}")
    request = {"name": "gpu", "exactly": {"deviceClassName": node}}
    arrange.client.create(
        arrange.path("resourceclaims", group=claims),
        {"metadata": {"name": "claim"}, "spec": {"devices": {"requests": [request]}}},
    )
    pod = arrange.pod("p", 0, resourceClaims=[{"name": "gpu", "resourceClaimName": "claim"}])
    arrange.start("p", node)
    result = {"request": "gpu", "driver": "gpu.nvidia.com", "pool": node, "device": "gpu-0"}
    status = {
        "allocation": {"devices": {"results": [result]}},
        "reservedFor": [{"resource": "pods", "name": "p", "uid": pod["metadata"]["uid"]}],
    }
    arrange.client.patch(arrange.path("resourceclaims", "claim/status", group=claims), {"status": status})
    place.look()
    row = place.rows("pod")["p"]
    assert (row["gpus"], row["resources"]) == (1.0, f'{{"{node}": 1}}')
    assert row["devices"] == f'[{{"device": "gpu-0", "pool": "{node}", "profile": null, "uuid": "GPU-1"}}]'


def test_nodes_members_and_demand_are_told(place: Place) -> None:
    arrange, node = place.arrange, f"{place.arrange.namespace}-n1"
    arrange.node(node, 8, **{"karpenter.sh/nodepool": "h100", "karpenter.sh/capacity-type": "spot"})
    arrange.client.create(
        arrange.path("resourcequotas"), {"metadata": {"name": "q"}, "spec": {"hard": {"requests.nvidia.com/gpu": "16"}}}
    )
    arrange.pod("waits", 8)
    arrange.pod("runs", 2)
    arrange.start("runs", node)
    batch = place.look()
    ours = [each for each in batch.troubles if each.example is None or arrange.namespace in each.example]
    assert (batch.read_until is not None, ours) == (True, [])
    row = place.rows("node")[node]
    assert (row["pool"], row["gpus"], row["capacity_type"], row["is_ready"]) == ("h100", 8, "spot", True)
    members = place.store.read("workspace_member").filter(pl.col("namespace") == arrange.namespace)
    (member,) = members.to_dicts()
    assert (member["workspace"], member["ends_at"]) == (place.workspace, None)
    (demand,) = place.store.read("demand_sample").filter(pl.col("workspace") == place.workspace).to_dicts()
    assert (demand["running_gpus"], demand["pending_gpus"], demand["capacity_gpus"]) == (2.0, 8.0, 16.0)


def test_a_context_that_is_not_there_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KUBE_CONFIG, str(tmp_path / "config"))
    for context, word in (("nowhere", "context nowhere"), (None, "no kubeconfig")):
        source = ClusterSource(FixedClock(datetime(2026, 3, 2, tzinfo=UTC)), "east", context)
        with pytest.raises(SourceUnavailable, match=word):
            list(source.collect(None, datetime(2026, 3, 2, tzinfo=UTC)))
        source.close()
