"""What a look at a cluster knows becomes rows: from objects alone, without a server."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import polars as pl
import pytest

from collectors.cluster_claims import ClaimFacts, Claims, DeviceFacts
from collectors.cluster_events import fault_facts
from collectors.cluster_kueue import Kueue, flavor_facts, local_queue_facts, queue_facts, workload_facts
from collectors.cluster_kueue_objects import ClusterQueue, ClusterQueueStatus, LocalQueue, ResourceFlavor, Workload
from collectors.cluster_nodes import NodeFacts, node_facts
from collectors.cluster_objects import Event, Named, Node, Pod, ResourceQuota
from collectors.cluster_pods import PodFacts, closed, pod_facts
from collectors.cluster_rows import Known, Memory, Place, View, frames_of
from collectors.cluster_spaces import WORKSPACE, QuotaFacts, SpaceFacts, changes, quota_facts, space_facts
from fleet.batch import Batch, Trouble
from fleet.tables import POD, WORKSPACE_MEMBER

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
BORN = "2026-03-01T00:00:00Z"
PLACE = Place("east", "east", NOW, "t")
GPU = "nvidia.com/gpu"


def meta(name: str, namespace: str = "team", **labels: str) -> dict[str, Any]:
    return {"name": name, "namespace": namespace, "uid": f"uid-{name}", "creationTimestamp": BORN, "labels": labels}


def pod(
    name: str, resources: dict[str, str], *, node: str | None = "n1", status: dict[str, Any] | None = None, **more: Any
) -> PodFacts:
    spec = {"nodeName": node, "containers": [{"resources": {"limits": resources}}], **more}
    body = {"metadata": meta(name), "spec": spec, "status": {"phase": "Running", **(status or {})}}
    facts = pod_facts(msgspec.convert(body, Pod, strict=False))
    assert facts is not None
    return facts


def node(name: str = "n1", labels: dict[str, str] | None = None, **more: Any) -> NodeFacts:
    told = {
        "nvidia.com/gpu.count": "8", "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
        "karpenter.sh/nodepool": "h100", "karpenter.sh/capacity-type": "spot", "topology.kubernetes.io/region": "r1",
    }  # fmt: skip
    status = {
        "capacity": {"cpu": "96", "memory": "2097152Mi", GPU: "8"},
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    body = {
        "metadata": meta(name, "", **(told if labels is None else labels)),
        "spec": {"providerID": "aws:///r1a/i-1"}, "status": status, **more,
    }  # fmt: skip
    return node_facts(msgspec.convert(body, Node, strict=False))


def space(name: str = "team", workspace: str | None = "research") -> SpaceFacts:
    labels = {} if workspace is None else {WORKSPACE: workspace}
    return space_facts(msgspec.convert({"metadata": meta(name, "", **labels)}, Named, strict=False))


def quota(name: str, hard: dict[str, str], namespace: str = "team") -> QuotaFacts | None:
    body = {"metadata": meta(name, namespace), "spec": {"hard": hard}}
    return quota_facts(msgspec.convert(body, ResourceQuota, strict=False))


def granted(*quotas: QuotaFacts | None) -> list[QuotaFacts]:
    return [each for each in quotas if each is not None]


def look(view: View, known: Known | None = None) -> dict[str, list[dict[str, Any]]]:
    frames, _ = frames_of(view, known or Known(), PLACE)
    return {name: frame.to_dicts() for name, frame in Batch("t", frames).checked().frames.items()}


def troubles(view: View) -> list[Trouble]:
    return frames_of(view, Known(), PLACE)[1]


def test_a_node_is_told_with_its_pool_model_and_physical_gpus() -> None:
    told = look(View(nodes=[node("a"), node("b")]))
    row = told["node"][0]
    assert (row["pool"], row["model"], row["gpus"], row["capacity_type"]) == (
        "h100", "NVIDIA-H100-80GB-HBM3", 8, "spot",
    )  # fmt: skip
    assert (row["cpu_milli"], row["memory_mib"], row["is_ready"], row["provider"]) == (96_000, 2_097_152, True, "aws")
    assert (told["node_pool"][0]["nodes"], told["node_pool"][0]["gpus_per_node"]) == (2, 8)
    assert (told["cluster"][0]["provider"], told["cluster"][0]["region"]) == ("aws", "r1")


@pytest.mark.parametrize(("status", "ready"), [("True", True), ("False", False), ("Unknown", False)])
def test_a_node_that_is_not_heard_of_is_not_ready(status: str, *, ready: bool) -> None:
    told = {"capacity": {}, "conditions": [{"type": "Ready", "status": status}]}
    (row,) = look(View(nodes=[node(status=told, spec={"unschedulable": True})]))["node"]
    assert (row["is_ready"], row["is_schedulable"]) == (ready, False)


def test_a_node_that_says_nothing_gives_nulls_and_no_zeros() -> None:
    (row,) = look(View(nodes=[node("bare", {}, status={}, spec={})]))["node"]
    assert [row[name] for name in ("gpus", "model", "cpu_milli", "is_ready", "capacity_type")] == [None] * 5


@pytest.mark.parametrize("text", ["9" * 40, "1e999", "-8", "x"])
def test_a_node_that_tells_nonsense_tells_nothing(text: str) -> None:
    amounts = {"capacity": {"cpu": text, "memory": text, GPU: text}}
    (row,) = look(View(nodes=[node("n", {"nvidia.com/gpu.count": text}, status=amounts)]))["node"]
    assert [row[name] for name in ("gpus", "cpu_milli", "memory_mib", "capacity")] == [None, None, None, "{}"]


@pytest.mark.parametrize(
    ("labels", "provider", "kind"),
    [
        ({"cloud.google.com/gke-nodepool": "p"}, "gce://p/z/n", "on_demand"),
        ({"cloud.google.com/gke-nodepool": "p", "cloud.google.com/gke-spot": "true"}, "gce://p/z/n", "spot"),
        ({"cloud.google.com/reservation-name": "r"}, "gce://p/z/n", "reserved"),
        ({"kubernetes.azure.com/scalesetpriority": "spot"}, "azure:///x", "spot"),
        ({"eks.amazonaws.com/capacityType": "CAPACITY_BLOCK"}, "aws:///x", "reserved"),
        ({}, "aws:///x", None),
    ],
)
def test_capacity_types_are_read_as_each_platform_tells_them(
    labels: dict[str, str], provider: str, kind: str | None
) -> None:
    assert node("n", labels, spec={"providerID": provider}).row["capacity_type"] == kind


def test_demand_is_what_runs_and_what_waits_by_workspace() -> None:
    pods = [
        pod("runs", {GPU: "2"}),
        pod("starting", {GPU: "1"}, status={"phase": "Pending"}),
        pod("waits", {GPU: "8"}, node=None, status={"phase": "Pending"}),
        pod("done", {GPU: "4"}, status={"phase": "Succeeded"}),
        pod("died", {GPU: "4"}, status={"phase": "Failed"}),
    ]
    rights = granted(quota("q", {"requests.nvidia.com/gpu": "16"}))
    (row,) = look(View([node()], pods, (), [space()], rights))["demand_sample"]
    assert (row["workspace"], row["running_gpus"], row["pending_gpus"]) == ("research", 3.0, 8.0)
    assert (row["running_jobs"], row["pending_jobs"], row["capacity_gpus"]) == (2.0, 1.0, 16.0)


def test_a_workspace_whose_pods_are_gone_is_at_zero_and_a_namespace_without_label_stands_for_itself() -> None:
    view = View([], [pod("p", {GPU: "1"}, node=None)], (), [space("team", None)], [])
    rows = look(view, Known(workspaces=frozenset({"old"})))
    assert [(row["workspace"], row["pending_gpus"]) for row in rows["demand_sample"]] == [("old", 0.0), ("team", 1.0)]
    assert "workspace_member" not in rows


@pytest.mark.parametrize("missing", ["pods", "nodes", "namespaces"])
def test_what_could_not_be_listed_is_unknown_and_not_zero(missing: str) -> None:
    whole: dict[str, Any] = {"nodes": [node()], "pods": [pod("p", {GPU: "1"})], "namespaces": [space()], "quotas": []}
    assert "demand_sample" in look(View(**whole))
    assert "demand_sample" not in look(View(**{**whole, missing: None}))


def test_a_shared_gpu_of_unknown_replicas_is_rejected_and_counted_but_its_pod_is_told() -> None:
    view = View([node("n1", {})], [pod("p", {"nvidia.com/gpu.shared": "1"})], (), [space()], [])
    assert [(each.kind, each.row_count, each.example) for each in troubles(view)] == [("rejected", 1, "team/p")]
    assert look(view)["pod"][0]["gpus"] is None


def test_several_quotas_of_a_namespace_hold_at_once_and_namespaces_of_a_workspace_add_up() -> None:
    rights = granted(
        quota("a", {"requests.nvidia.com/gpu": "16"}),
        quota("b", {"requests.nvidia.com/gpu": "4"}),
        quota("c", {"requests.nvidia.com/gpu": "3"}, "team-b"),
        quota("d", {"requests.cpu": "4"}),
    )
    (row,) = look(View([], [], (), [space(), space("team-b")], rights))["quota"]
    assert (row["workspace"], row["gpus"], row["starts_at"]) == ("research", 7.0, datetime(2026, 3, 1, tzinfo=UTC))


# When a pod held its GPUs


def ended(at: str | None) -> dict[str, Any]:
    return {"state": {"terminated": {"finishedAt": at}} if at else {"running": {}}}


@pytest.mark.parametrize(
    ("status", "start", "end"),
    [
        ({"conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-03-02T10:00:01Z"}],
          "startTime": "2026-03-02T10:00:09Z"}, "2026-03-02T10:00:01Z", None),
        ({"startTime": "2026-03-02T10:00:09Z"}, "2026-03-02T10:00:09Z", None),
        ({}, BORN, None),
        ({"phase": "Succeeded", "startTime": "2026-03-02T10:00:00Z",
          "containerStatuses": [ended("2026-03-02T11:00:07Z")]},
         "2026-03-02T10:00:00Z", "2026-03-02T11:00:07Z"),
        ({"phase": "Failed", "reason": "Evicted", "startTime": "2026-03-02T10:00:00Z"},
         "2026-03-02T10:00:00Z", "2026-03-02T10:00:00Z"),
        ({"phase": "Succeeded", "startTime": "2026-03-02T10:00:00Z",
          "containerStatuses": [ended("2026-03-02T09:00:00Z")]},
         "2026-03-02T10:00:00Z", "2026-03-02T10:00:00Z"),
    ],
    ids=["bound", "a kubelet's own", "nothing told", "ended", "evicted without containers", "clock of the node behind"],
)  # fmt: skip
def test_a_pod_holds_its_gpus_from_its_binding_to_its_last_containers_end(
    status: dict[str, Any], start: str, end: str | None
) -> None:
    facts = pod("p", {GPU: "1"}, status=status)
    assert facts.starts_at == datetime.fromisoformat(start)
    assert facts.ends_at == (None if end is None else datetime.fromisoformat(end))


def test_a_pod_that_went_away_ended_when_its_containers_had_else_when_it_was_to_die_else_now() -> None:
    running = pod("p", {GPU: "1"}, status={"containerStatuses": [ended(None)]})
    finished = pod("p", {GPU: "1"}, status={"containerStatuses": [ended("2026-03-02T11:00:00Z")]})
    assert closed(running, NOW).ends_at == NOW
    assert closed(finished, NOW).ends_at == NOW - timedelta(hours=1)
    body = {
        "metadata": {**meta("p"), "deletionTimestamp": "2026-03-02T11:30:00Z"},
        "spec": {"nodeName": "n1", "containers": [{"resources": {"limits": {GPU: "1"}}}]},
    }
    facts = pod_facts(msgspec.convert(body, Pod, strict=False))
    assert facts is not None
    assert closed(facts, NOW).ends_at == NOW - timedelta(minutes=30)


def test_only_what_is_new_is_told_again_and_what_was_not_stored_is() -> None:
    memory, view = Memory(), View([node()], [pod("p", {GPU: "1"})], (), [space()], [])
    assert frames_of(view, Known(), PLACE, memory)[0]["pod"].height == 1
    assert frames_of(view, Known(), PLACE, memory)[0]["pod"].height == 1
    memory.settle()
    assert "pod" not in frames_of(view, Known(), PLACE, memory)[0]
    changed = View([node()], [pod("p", {GPU: "1"}, status={"phase": "Failed"})], (), [space()], [])
    assert frames_of(changed, Known(), PLACE, memory)[0]["pod"].height == 1


def test_pods_that_stand_open_and_are_not_there_are_closed_but_not_where_pods_could_not_be_read() -> None:
    row = {
        "cluster": "east", "namespace": "team", "pod": "lost", "pod_uid": "uid-lost",
        "created_at": NOW - timedelta(days=1), "starts_at": NOW - timedelta(hours=1),
    }  # fmt: skip
    known = Known(pods=pl.DataFrame([row], schema=POD.schema()))
    assert [(each["pod"], each["ends_at"]) for each in look(View(pods=[]), known)["pod"]] == [("lost", NOW)]
    assert "pod" not in look(View(pods=None), known)


# Claims


def test_pods_on_one_claim_share_its_devices_evenly_and_an_unknown_claim_is_unknown() -> None:
    facts = ClaimFacts(
        {"gpu.nvidia.com": 1.0}, (("n1", "gpu-0"),), frozenset(f"uid-{name}" for name in "abcd"), is_allocated=True
    )
    devices = {("n1", "gpu-0"): DeviceFacts("GPU-1", None, 1.0)}
    claims = Claims({("team", "c"): facts}, devices, {"gpu.nvidia.com": 1.0}, is_known=True)
    pods = [pod(name, {}, resourceClaims=[{"name": "g", "resourceClaimName": "c"}]) for name in "abcd"]
    pods.append(pod("e", {}, resourceClaims=[{"name": "g", "resourceClaimName": "not-there"}]))
    rows = {row["pod"]: row for row in look(View([node()], pods, (), [space()], [], claims))["pod"]}
    assert sum(rows[name]["gpus"] for name in "abcd") == pytest.approx(1.0)
    assert '"uuid": "GPU-1"' in rows["a"]["devices"]
    assert "e" not in rows  # not known to ask for GPUs


def test_a_pod_that_is_over_keeps_no_share_of_a_claim_that_has_forgotten_it_but_all_of_its_own() -> None:
    shared = ClaimFacts({"gpu.nvidia.com": 1.0}, (), frozenset({"uid-other"}), is_allocated=False)
    own = ClaimFacts({"gpu.nvidia.com": 2.0}, (), frozenset(), is_allocated=False, maker="uid-b")
    claims = Claims({("team", "s"): shared, ("team", "o"): own}, {}, {"gpu.nvidia.com": 1.0}, is_known=True)
    over = {"phase": "Succeeded"}
    pods = [
        pod("a", {}, status=over, resourceClaims=[{"name": "g", "resourceClaimName": "s"}]),
        pod("b", {}, status=over, resourceClaims=[{"name": "g", "resourceClaimName": "o"}]),
    ]
    rows = look(View([node()], pods, (), [space()], [], claims))["pod"]
    assert {row["pod"]: row["gpus"] for row in rows} == {"a": None, "b": 2.0}


def test_a_pod_whose_end_is_stored_is_not_told_again_whatever_changes_around_it() -> None:
    over = pod("p", {GPU: "1"}, status={"phase": "Succeeded"})
    memory = Memory()
    assert frames_of(View([node()], [over], (), [space()], []), Known(), PLACE, memory)[0]["pod"].height == 1
    memory.settle()
    moved = View([], [over], (), [space("team", "elsewhere")], [])
    assert "pod" not in frames_of(moved, Known(), PLACE, memory)[0]
    assert "pod" not in frames_of(moved, Known(over=lambda: frozenset({"uid-p"})), PLACE)[0]
    assert frames_of(moved, Known(over=lambda: frozenset({"uid-q"})), PLACE)[0]["pod"].height == 1


# Kueue


def workload(name: str, **status: Any) -> Any:
    template = {"spec": {"containers": [{"resources": {"requests": {GPU: "4"}}}]}}
    spec = {"queueName": "lq", "podSets": [{"name": "m", "count": 2, "template": template}], "priority": 100}
    body = {"metadata": meta(name), "spec": spec, "status": status}
    return workload_facts(msgspec.convert(body, Workload, strict=False))


def kueue(*workloads: Any) -> Kueue:
    resources = [{"name": GPU, "nominalQuota": "16", "borrowingLimit": "8"}]
    groups = [{"coveredResources": [GPU], "flavors": [{"name": "h100", "resources": resources}]}]
    status = {
        "pendingWorkloads": 3, "admittedWorkloads": 0, "conditions": [condition("Active", "2026-03-02T10:00:00Z")],
        "flavorsReservation": [{"name": "h100", "resources": [{"name": GPU, "total": "20"}]}],
        "flavorsUsage": [{"name": "h100", "resources": [{"name": GPU, "total": "18", "borrowed": "2"}]}],
    }  # fmt: skip
    queue = {"metadata": meta("cq", ""), "spec": {"cohortName": "all", "resourceGroups": groups}, "status": status}
    flavor = {"metadata": meta("h100", ""), "spec": {"nodeLabels": {"karpenter.sh/nodepool": "h100"}}}
    local = {"metadata": meta("lq"), "spec": {"clusterQueue": "cq"}}
    told = queue_facts(WORKSPACE, msgspec.convert(queue, ClusterQueue, strict=False))
    assert told is not None
    return Kueue(
        queues=[told],
        local_queues=[local_queue_facts(msgspec.convert(local, LocalQueue, strict=False))],
        flavors={"h100": flavor_facts(msgspec.convert(flavor, ResourceFlavor, strict=False))},
        workloads=[each for each in workloads if each is not None],
        is_installed=True,
    )


def condition(kind: str, at: str, reason: str = "x") -> dict[str, str]:
    return {"type": kind, "status": "True", "lastTransitionTime": at, "reason": reason}


def test_queues_are_quotas_and_workloads_are_jobs_with_their_times() -> None:
    waits = workload("waits")
    runs = workload("runs", conditions=[condition("Admitted", "2026-03-02T10:00:00Z")])
    done = workload(
        "done",
        conditions=[
            condition("Admitted", "2026-03-02T09:00:00Z"),
            condition("Finished", "2026-03-02T11:00:00Z", "Succeeded"),
        ],
    )
    told = look(View([node()], [], (), [space()], [], kueue=kueue(waits, runs, done)))
    (right,) = told["quota"]
    assert (right["workspace"], right["pool"], right["gpus"], right["borrowing_gpus"]) == (
        "research",
        "h100",
        16.0,
        8.0,
    )
    jobs = {row["job_id"].split("/")[1]: row for row in told["job"]}
    assert {name: (row["status"], row["gpus"]) for name, row in jobs.items()} == {
        "waits": ("pending", 8.0), "runs": ("running", 8.0), "done": ("succeeded", 8.0),
    }  # fmt: skip
    assert (jobs["done"]["started_at"], jobs["done"]["ended_at"]) == (
        NOW - timedelta(hours=3),
        NOW - timedelta(hours=1),
    )
    assert told["demand_sample"][0]["pending_gpus"] == 8.0


def test_a_queue_is_told_as_it_stands_and_what_it_does_not_tell_is_null() -> None:
    told = kueue()
    (row,) = look(View([node()], [], (), [space()], [], kueue=told))["queue"]
    assert (row["workspace"], row["flavor"], row["pool"], row["is_active"]) == ("research", "h100", "h100", True)
    gpus = [row[f"{word}_gpus"] for word in ("nominal", "reserved", "used", "borrowed")]
    assert gpus == [16.0, 20.0, 18.0, 2.0]
    assert (row["pending_jobs"], row["admitted_jobs"]) == (3, 0)
    (queue,) = told.queues or ()
    silent = replace(told, queues=[replace(queue, status=ClusterQueueStatus())])
    (row,) = look(View([node()], [], (), [space()], [], kueue=silent))["queue"]
    assert [row[name] for name in ("used_gpus", "borrowed_gpus", "pending_jobs", "is_active")] == [None] * 4


def test_pods_that_kueue_holds_back_are_counted_once_with_their_workload() -> None:
    gate = [{"name": "kueue.x-k8s.io/admission"}]
    held = pod("held", {GPU: "8"}, node=None, schedulingGates=gate, status={"phase": "Pending"})
    with_it = look(View([node()], [held], (), [space()], [], kueue=kueue(workload("w"))))
    without = look(View([node()], [held], (), [space()], []))
    assert with_it["demand_sample"][0]["pending_gpus"] == without["demand_sample"][0]["pending_gpus"] == 8.0


# Events


@pytest.mark.parametrize(
    ("reason", "message", "kind", "code"),
    [
        ("NvidiaXID79Error", "fell off", "xid", 79),
        ("Kernel", "NVRM: Xid (PCI:0000:3b:00): 48, pid=1, double bit", "xid", 48),
        ("Rebooted", "Node n1 has been rebooted, boot id: 1", "boot", None),
        ("NodeNotReady", "the node is not ready", None, None),
    ],
)
def test_events_about_nodes_tell_of_xids_and_boots(
    reason: str, message: str, kind: str | None, code: int | None
) -> None:
    body = {
        "metadata": meta("e", "default"), "involvedObject": {"kind": "Node", "name": "n1"}, "reason": reason,
        "message": message, "lastTimestamp": "2026-03-02T11:00:00Z",
    }  # fmt: skip
    facts = fault_facts(msgspec.convert(body, Event, strict=False))
    assert (None if facts is None else facts.kind) == kind
    if facts is not None:
        (row,) = look(View(faults=[facts]))["event"]
        told = (row["kind"], row["code"], row["node"], row["ts"])
        assert told == (kind, code, "n1", NOW - timedelta(hours=1))


# Intervals of memberships and quotas


def members(rows: Sequence[tuple[str, str, datetime, datetime | None]]) -> pl.DataFrame:
    names = ("namespace", "workspace", "starts_at", "ends_at")
    return pl.DataFrame(
        [{"cluster": "east", **dict(zip(names, row, strict=True))} for row in rows], schema=WORKSPACE_MEMBER.schema()
    )


@pytest.mark.parametrize(
    ("known", "wanted", "expected"),
    [
        ([], [("a", "x")], [("a", "x", "born", None)]),
        ([("a", "x", "born", None)], [("a", "x")], []),
        ([("a", "x", "born", None)], [("a", "y")], [("a", "x", "born", "now"), ("a", "y", "now", None)]),
        ([("a", "x", "born", None)], [], [("a", "x", "born", "now")]),
        ([("a", "x", "born", "before")], [("a", "x")], [("a", "x", "now", None)]),
        ([("a", "x", "born", "before")], [], []),
    ],
    ids=["new", "as it was", "moved", "gone", "came back", "still gone"],
)
def test_intervals_follow_what_is_wanted(
    known: list[tuple[str, str, str, str | None]],
    wanted: list[tuple[str, str]],
    expected: list[tuple[str, str, str, str | None]],
) -> None:
    times = {"born": NOW - timedelta(days=2), "before": NOW - timedelta(days=1), "now": NOW}
    moment: Callable[[str | None], datetime | None] = lambda word: None if word is None else times[word]  # noqa: E731 - for two lines
    stands = members([(one, two, times[start], moment(end)) for one, two, start, end in known])
    now_wanted = members([(one, two, times["born"], None) for one, two in wanted])
    made = changes(stands, now_wanted, ("cluster", "namespace"), NOW)
    assert made.rows() == [("east", one, two, times[start], moment(end)) for one, two, start, end in expected]
