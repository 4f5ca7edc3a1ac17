"""What Kueue manages is stopped, brought back and granted so that Kueue goes along with it."""

from types import MappingProxyType

import pytest

from fleet.errors import MoveRefused
from fleet.move import Move, MoveKind
from fleet.state import ObjectRef, Quota, Workload
from tests.actions.fakes import set_to
from tests.kube.answers import Object, Refusal
from tests.kube.engines import Arena, meant
from tests.kube.queues import KUEUE, QUEUE_NAME, Queues, pods, specs, until

pytestmark = pytest.mark.enable_socket


@pytest.fixture
def queues(work: Arena) -> Queues:
    return Queues(work).need_kueue()


def seen(work: Arena, job: Object) -> Workload:
    ref = ObjectRef(job["kind"], work.namespace, job["metadata"]["name"])
    return next(each for each in work.cluster.observe().workloads if each.ref == ref)


def stop_of(work: Arena, job: Object) -> Move:
    target = seen(work, job)
    return Move(
        "m1", MoveKind.SUSPEND_WORKLOAD, "c1", target.ref, "all_parts_idle", "it idles", workspace=target.workspace,
        resource_version=target.resource_version,
    )  # fmt: skip


def quota_of(work: Arena, name: str) -> Quota:
    return next(each for each in work.cluster.observe().quotas if each.workspace == work.name(name))


@pytest.mark.parametrize("kind", sorted(specs(1)))
def test_what_runs_by_kueue_is_stopped_gives_its_quota_back_and_runs_again_as_before(
    work: Arena, queues: Queues, kind: str
) -> None:
    queues.add("lab", 2)
    job = queues.submit("lab", 2, kind=kind)
    running, admitted = meant(queues.until_admitted(job)), meant(queues.workload(job))
    other = queues.submit("lab", 1, "other")
    queues.workload(other)
    stop = stop_of(work, job)
    prior = work.do(stop)
    queues.until_held(job)
    held = seen(work, job)
    assert (held.is_suspended, held.suspended_by) == (True, "gpu-steward")
    queues.until_admitted(other)  # what it held is free for others
    queues.withdraw("other")
    work.undo(stop, prior)
    assert meant(queues.until_admitted(job)) == running
    assert meant(queues.workload(job)) == admitted
    assert seen(work, job).suspended_by is None


def test_what_waits_in_a_queue_is_stopped_and_not_started_when_there_is_room(work: Arena, queues: Queues) -> None:
    queues.add("lab", 2)
    first = queues.submit("lab", 2, "first")
    queues.until_admitted(first)
    waiting = queues.submit("lab", 2)
    queues.workload(waiting)
    stop = stop_of(work, waiting)
    prior = work.do(stop)
    queues.withdraw("first")
    third = queues.submit("lab", 2, "third")
    queues.until_admitted(third)  # Kueue has gone on, and passed it by
    queues.until_held(waiting)
    queues.withdraw("third")
    work.undo(stop, prior)
    queues.until_admitted(waiting)


def test_what_somebody_lets_run_again_is_no_longer_ours_to_resume(work: Arena, queues: Queues) -> None:
    queues.add("lab", 2)
    job = queues.submit("lab", 2)
    queues.until_admitted(job)
    stop = stop_of(work, job)
    prior = work.do(stop)
    queues.until_held(job)
    work.change(KUEUE, "Workload", queues.workload(job)["metadata"]["name"], {"spec": {"active": True}})
    queues.until_admitted(job)
    assert seen(work, job).suspended_by is None
    with pytest.raises(MoveRefused, match="changed by others"):
        work.undo(stop, prior)


def test_quota_moves_between_two_queues_of_a_cohort_while_both_run_work(work: Arena, queues: Queues) -> None:
    before = [meant(queues.add("rich", 6)), meant(queues.add("poor", 2, borrowingLimit="0"))]
    runs = queues.submit("rich", 2, "runs")
    queues.until_admitted(runs)
    waits = queues.submit("poor", 4, "waits")
    assert "admission" not in (queues.workload(waits).get("status") or {})
    gives = set_to(quota_of(work, "rich"), gpus=4)
    takes = set_to(quota_of(work, "poor"), gpus=4)
    priors = [work.do(gives), work.do(takes)]
    queues.until_admitted(waits)
    assert not work.see("batch/v1", "Job", "runs")["spec"]["suspend"]
    until(lambda: queues.used("poor") == "4")
    for each, prior in ((takes, priors[1]), (gives, priors[0])):
        work.undo(each, prior)
    assert [meant(work.see(KUEUE, "ClusterQueue", work.name(name))) for name in ("rich", "poor")] == before
    # what Kueue has admitted stays, though its queue has less than it uses now
    assert not work.see("batch/v1", "Job", "waits")["spec"]["suspend"]


def test_a_queue_never_lends_more_than_it_has(work: Arena, queues: Queues) -> None:
    before = meant(queues.add("lab", 8, lendingLimit="6"))
    row = quota_of(work, "lab")
    with pytest.raises(MoveRefused, match="less than or equal to the nominalQuota"):
        work.cluster.rehearse(set_to(row, gpus=5))
    less = set_to(row, gpus=5, lending_gpus=5)
    work.undo(less, work.do(less))
    assert meant(work.see(KUEUE, "ClusterQueue", work.name("lab"))) == before


def test_a_boost_decides_who_runs_next(work: Arena, queues: Queues) -> None:
    queues.add("lab", 2)
    queues.until_admitted(queues.submit("lab", 2, "first"))
    second, third = (queues.submit("lab", 2, name) for name in ("second", "third"))
    for job in (second, third):
        queues.workload(job)
    need_boosts(work, queues.workload(third))
    target = seen(work, third)
    boost = Move(
        "m1", MoveKind.SET_PRIORITY_BOOST, "c1", target.ref, "demand", "it is urgent", workspace=target.workspace,
        arguments=MappingProxyType({"priority_boost": 100}), resource_version=target.resource_version,
    )  # fmt: skip
    prior = work.do(boost)
    queues.withdraw("first")
    queues.until_admitted(third)
    queues.until_held(second)
    work.undo(boost, prior)
    assert seen(work, third).priority_boost is None


def need_boosts(work: Arena, workload: Object) -> None:
    """Skip the test where Kueue counts no boosts: it would take any text for one."""
    note = {"metadata": {"annotations": {"kueue.x-k8s.io/priority-boost": "no number"}}}
    path = work.resource(KUEUE, "Workload").path(workload["metadata"]["name"], work.namespace)
    try:
        work.client.patch(path, note, dryRun="All")
    except Refusal:
        return
    pytest.skip("this Kueue's gate PriorityBoost is off")


@pytest.mark.parametrize("kind", ["LocalQueue", "ClusterQueue"])
def test_a_queue_that_drains_stops_its_jobs_and_lets_them_go_on(work: Arena, queues: Queues, kind: str) -> None:
    queues.add("lab", 2)
    job = queues.submit("lab", 2)
    queues.until_admitted(job)
    ref = ObjectRef(kind, work.namespace, "lab") if kind == "LocalQueue" else ObjectRef(kind, "", work.name("lab"))
    found = next(each for each in work.cluster.observe().queues if each.ref == ref)
    drain = Move(
        "m1", MoveKind.SET_QUEUE_STOP, "c1", ref, "spent", "the budget is spent",
        arguments=MappingProxyType({"stop_policy": "HoldAndDrain"}), resource_version=found.resource_version,
    )  # fmt: skip
    prior = work.do(drain)
    queues.until_held(job)
    assert seen(work, job).suspended_by is None  # it waits for its queue; nobody has stopped it
    work.undo(drain, prior)
    queues.until_admitted(job)


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_a_server_whose_pods_are_queued_is_stopped_by_its_size(work: Arena, queues: Queues, kind: str) -> None:
    """Kueue queues its pods, one by one or as a group, and goes along with their number."""
    queues.add("lab", 4)
    labels = {"app": "w"}
    spec: Object = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, **lasting(1)}}
    spec |= {"replicas": 2} | ({"serviceName": "w", "podManagementPolicy": "Parallel"} if kind == "StatefulSet" else {})
    before = meant(work.put("apps/v1", kind, "w", metadata={"labels": {QUEUE_NAME: "lab"}}, spec=spec))
    until(lambda: _replicas(work, kind) == 2 or work.server)
    stop = stop_of(work, {"kind": kind, "metadata": {"name": "w"}})
    prior = work.do(stop)
    until(lambda: _replicas(work, kind) == 0)  # until then, Kueue does not let a StatefulSet grow again
    work.undo(stop, prior)
    assert meant(work.see("apps/v1", kind, "w")) == before


def test_of_a_gang_no_pod_is_stopped_alone(work: Arena, queues: Queues) -> None:
    queues.add("lab", 2)
    queues.submit_gang("lab", "one", "two")
    stop = Move("m1", MoveKind.SUSPEND_WORKLOAD, "c1", ObjectRef("Pod", work.namespace, "one"), "idle", "it idles")
    with pytest.raises(MoveRefused, match="nothing brings it back"):
        work.cluster.rehearse(stop)
    assert not [name for name in ("one", "two") if "deletionTimestamp" in work.see("v1", "Pod", name)["metadata"]]


def lasting(gpus: int) -> Object:
    """Return a template of pods that are started anew when they end."""
    return {"spec": {name: value for name, value in pods(gpus)["spec"].items() if name != "restartPolicy"}}


def _replicas(work: Arena, kind: str) -> int:
    return int((work.see("apps/v1", kind, "w").get("status") or {}).get("replicas", 0))
