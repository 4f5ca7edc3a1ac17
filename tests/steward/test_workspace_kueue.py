"""A workspace whose queue Kueue rules: work runs by it, and it goes whole when it is deleted, and can come again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.clock import SystemClock
from steward.compose import House
from steward.config import Settings
from steward.desk import HouseDesk
from store.store import Store
from tests.kube.answers import Object
from tests.kube.engines import Arena, arena
from tests.kube.queues import KUEUE, Queues, pods

pytestmark = pytest.mark.enable_socket


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.cluster)])
def work(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Arena]:
    with arena(request.param, tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def queues(work: Arena) -> Queues:
    return Queues(work, space=f"{work.namespace}-a").need_kueue()


@pytest.fixture
def desk(work: Arena) -> Iterator[HouseDesk]:
    clock = SystemClock()
    with Store.open(None, clock=clock) as store:
        yield HouseDesk(House(Settings(), store, clock, (), (work.cluster,)))


def manifest(work: Arena, **quota: object) -> Object:
    spec = {
        "namespaces": [{"name": f"{work.namespace}-a"}],
        "quotas": [{"pool": work.name("pool"), "gpus": 4, **quota}],
    }
    meta = {"name": work.name("lab")}
    return {"apiVersion": "gpusteward.dev/v1alpha1", "kind": "Workspace", "metadata": meta, "spec": spec}


def apply(work: Arena, desk: HouseDesk, **quota: object) -> dict[str, Any]:
    paths = (work.resource(KUEUE, "ClusterQueue").path(work.name("lab")), f"/api/v1/namespaces/{work.namespace}-a")
    work.made += [path for path in paths if path not in work.made]
    return desk.operate("workspace_apply", {"manifests": [manifest(work, **quota)], "yes": True, "who": "ann"})


def test_work_runs_by_the_queue_of_a_workspace_which_shows_no_drift(
    work: Arena, desk: HouseDesk, queues: Queues
) -> None:
    made = apply(work, desk, borrowingGpus=0, lendingGpus=4, weight=0.5)
    assert made["exitCode"] == 0, made
    job = queues.submit(work.name("lab"), 3)
    queues.until_admitted(job)
    assert desk.report("workspace_drift", {})["items"] == []
    changed = apply(work, desk, borrowingGpus=0, lendingGpus=2, weight=1.5)
    assert (changed["exitCode"], changed["summary"]["made"]) == (0, 1)
    assert desk.report("workspace_drift", {})["items"] == []
    queue = work.see(KUEUE, "ClusterQueue", work.name("lab"))["spec"]
    assert queue["fairSharing"]["weight"] == "1500m"
    assert not work.see("batch/v1", "Job", "w", queues.space)["spec"]["suspend"]


def test_a_workspace_that_runs_work_stays_until_it_is_forced_then_goes_whole_and_can_come_again(
    work: Arena, desk: HouseDesk, queues: Queues
) -> None:
    apply(work, desk)
    job = queues.submit(work.name("lab"), 3)
    queues.until_admitted(job)
    meta = {"name": "runs", "namespace": queues.space}
    spec = {**pods(1)["spec"], "schedulerName": "steward-test"}
    work.client.create(f"/api/v1/namespaces/{queues.space}/pods", {"metadata": meta, "spec": spec})
    name = {"name": work.name("lab")}
    kept = desk.operate("workspace_delete", {**name, "who": "ann", "yes": True})
    assert kept["exitCode"] != 0
    assert not work.see("batch/v1", "Job", "w", queues.space)["spec"]["suspend"]
    gone = desk.operate("workspace_delete", {**name, "who": "ann", "yes": True, "force": True})
    assert gone["exitCode"] == 0, gone
    queues.until_gone("v1", "Namespace", queues.space)
    queues.until_gone(KUEUE, "ClusterQueue", work.name("lab"))
    again = apply(work, desk)
    assert again["exitCode"] == 0, again
    queues.until_admitted(queues.submit(work.name("lab"), 4))
