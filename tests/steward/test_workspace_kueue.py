"""A workspace whose queue Kueue rules: work runs by it, and it goes whole when it is deleted, and can come again."""

from collections.abc import Iterator
from typing import Any

import pytest

from fleet.clock import SystemClock
from steward.compose import House
from steward.config import Settings
from steward.desk import HouseDesk
from store.store import Store
from tests.kube.answers import Object
from tests.kube.engines import Arena
from tests.kube.queues import KUEUE, Queues

pytestmark = pytest.mark.enable_socket


@pytest.fixture
def queues(work: Arena) -> Queues:
    return Queues(work, space=f"{work.namespace}-a").need_kueue()


@pytest.fixture
def desk(work: Arena) -> Iterator[HouseDesk]:
    clock = SystemClock()
    with Store.open(None, clock=clock) as store:
        yield HouseDesk(House(Settings(), store, clock, (), (work.cluster,)))


def manifest(work: Arena, *, gpus: int | None = 4, **quota: object) -> Object:
    spec = {
        "namespaces": [{"name": f"{work.namespace}-a"}],
        "quotas": [] if gpus is None else [{"pool": work.name("pool"), "gpus": gpus, **quota}],
    }
    meta = {"name": work.name("lab")}
    return {"apiVersion": "gpusteward.dev/v1alpha1", "kind": "Workspace", "metadata": meta, "spec": spec}


def apply(work: Arena, desk: HouseDesk, gpus: int | None = 4, **quota: object) -> dict[str, Any]:
    paths = (work.resource(KUEUE, "ClusterQueue").path(work.name("lab")), f"/api/v1/namespaces/{work.namespace}-a")
    work.made += [path for path in paths if path not in work.made]
    wanted = [manifest(work, gpus=gpus, **quota)]
    return desk.operate("workspace_apply", {"manifests": wanted, "yes": True, "who": "ann"})


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
    job = queues.submit(work.name("lab"), 2)
    queues.until_admitted(job)
    queues.submit_gang(work.name("lab"), "one", "two")
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


def test_a_queue_that_is_taken_away_lets_its_work_end_first_and_comes_again_after_it(
    work: Arena, desk: HouseDesk, queues: Queues
) -> None:
    apply(work, desk)
    job = queues.submit(work.name("lab"), 3)
    queues.until_admitted(job)
    taken = apply(work, desk, gpus=None)
    assert taken["exitCode"] == 0, taken
    assert "deletionTimestamp" in work.see(KUEUE, "ClusterQueue", work.name("lab"))["metadata"]
    assert not work.see("batch/v1", "Job", "w", queues.space)["spec"]["suspend"]
    early = apply(work, desk)
    assert any("is being deleted" in str(each["detail"]) for each in early["items"]), early
    queues.withdraw("w")
    queues.until_gone(KUEUE, "ClusterQueue", work.name("lab"))
    again = apply(work, desk)
    assert again["exitCode"] == 0, again
    queues.until_admitted(queues.submit(work.name("lab"), 4, "next"))
