"""What is known of a cluster at one moment becomes frames of our tables."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from collectors.cluster_claims import Claims
from collectors.cluster_events import FaultFacts, fault_row
from collectors.cluster_gpus import common_parts
from collectors.cluster_kueue import Kueue, WorkloadFacts, gpus_wanted, job_id, job_row, queue_quotas
from collectors.cluster_nodes import NodeFacts, node_rows, pools_of, provider_and_region
from collectors.cluster_objects import OwnerReference
from collectors.cluster_pods import Around, PodFacts, is_of_gpus, pod_row, wants
from collectors.cluster_queues import queue_rows
from collectors.cluster_spaces import QuotaFacts, SpaceFacts, changes, granted
from fleet.batch import Trouble
from fleet.frames import Table, conform
from fleet.tables import CLUSTER, DEMAND_SAMPLE, EVENT, JOB, NODE, POD, QUEUE, QUOTA, WORKSPACE_MEMBER

Row = Mapping[str, object]
_NOTHING: Mapping[str, float] = {"running_gpus": 0.0, "pending_gpus": 0.0, "running_jobs": 0.0, "pending_jobs": 0.0}


@dataclass(frozen=True, slots=True)
class Known:
    """What stands in the store of this cluster, for intervals to go on after a restart.

    All memberships and quotas, the workspaces that ever had demand, and the pods and jobs that have no end yet; `over`
    gives the UIDs of the pods that have one.
    """

    members: pl.DataFrame = field(default_factory=WORKSPACE_MEMBER.empty)
    quotas: pl.DataFrame = field(default_factory=QUOTA.empty)
    workspaces: frozenset[str] = frozenset()
    pods: pl.DataFrame = field(default_factory=POD.empty)
    jobs: pl.DataFrame = field(default_factory=JOB.empty)
    over: Callable[[], frozenset[str]] = frozenset


@dataclass(frozen=True, slots=True)
class View:
    """What one look at a cluster knows; None = that kind could not be read, and nothing is concluded from it.

    `pods` and `workloads` of `kueue` hold what there is, `gone_pods` and `gone_workloads` what went since, ended.
    `top` gives kind and name of a pod's topmost owner.
    """

    nodes: Collection[NodeFacts] | None = None
    pods: Collection[PodFacts] | None = None
    gone_pods: Collection[PodFacts] = ()
    namespaces: Collection[SpaceFacts] | None = None
    quotas: Collection[QuotaFacts] | None = None
    claims: Claims = field(default_factory=Claims)
    kueue: Kueue = field(default_factory=Kueue)
    gone_workloads: Collection[WorkloadFacts] = ()
    faults: Collection[FaultFacts] = ()
    top: Callable[[OwnerReference], tuple[str, str]] = lambda reference: (reference.kind, reference.name)


@dataclass(frozen=True, slots=True)
class Place:
    """Which cluster, by which context, seen when (by the API server's clock), told by which source."""

    cluster: str
    context: str | None
    now: datetime
    source: str


class Memory:
    """What was handed over already, so that a look tells only what is new; `settle` once it is stored."""

    def __init__(self) -> None:
        self._stored: dict[str, dict[object, Row]] = {}
        self._told: dict[str, dict[object, Row]] = {}
        self._over: frozenset[str] | None = None

    def news(self, table: str, key: str, rows: Iterable[Row]) -> list[Row]:
        """Return the rows that are not as they were handed over before."""
        told = {row[key]: row for row in rows}
        before = self._stored.get(table, {})
        self._told[table] = told
        return [row for name, row in told.items() if before.get(name) != row]

    def still_to_tell(self, view: View, known: Known) -> list[PodFacts]:
        """Return the pods but those whose end is stored: what is over stays as it was told when it was so."""
        over = known.over() if self._over is None else self._over
        pods = (*(view.pods or ()), *view.gone_pods)
        self._over = over if view.pods is None else over.intersection(pod.uid for pod in pods)
        return [pod for pod in pods if pod.ends_at is None or pod.uid not in over]

    def settle(self) -> None:
        """Take what was told last as stored."""
        ended = {str(row["pod_uid"]) for row in self._told.get("pod", {}).values() if row["ends_at"] is not None}
        self._over = (self._over or frozenset()) | ended
        self._stored, self._told = {**self._stored, **self._told}, {}


def frames_of(
    view: View, known: Known, place: Place, memory: Memory | None = None
) -> tuple[dict[str, pl.DataFrame], list[Trouble]]:
    """Return the frames that a view gives, and what could not be understood.

    A namespace stands for itself where no label puts it into a workspace. What could not be read changes nothing: no
    interval is closed because a list was missing.
    """
    memory = memory or Memory()
    spaces = None if view.namespaces is None else {each.name: each for each in view.namespaces}
    parts = None if view.nodes is None else {node.name: node.parts for node in view.nodes}
    around = Around(view.claims, parts, common_parts((parts or {}).values()))
    frames = {"cluster": _cluster_frame(view, place)}
    if view.nodes is not None:
        frames["node"] = _frame(node_rows(view.nodes, place.cluster, place.now), NODE)
        frames["node_pool"] = pools_of(frames["node"])
    if view.namespaces is not None:
        frames["workspace_member"] = _members(view.namespaces, known, place)
    pods = memory.still_to_tell(view, known)
    frames["pod"] = _pod_frame(
        view, known, place, memory.news("pod", "pod_uid", _pod_rows(pods, view, around, spaces, place))
    )
    jobs = memory.news("job", "job_id", _job_rows(view, around, spaces, place))
    frames["job"] = _job_frame(view, known, place, jobs)
    rights = _quota_rows(view, around, spaces)
    if rights is not None:
        frames["quota"] = _quotas(rights, known, place)
    if spaces is not None and view.kueue.queues:
        frames["queue"] = _queue_frame(view, around, spaces, place)
    faults = [{"cluster": place.cluster, **fault_row(each, place.source)} for each in view.faults]
    frames["event"] = _frame(faults, EVENT)
    troubles: list[Trouble] = []
    if view.pods is not None and view.nodes is not None and spaces is not None:
        demand, troubles = _demand(view, around, spaces)
        frames["demand_sample"] = _demand_frame(demand, rights, known, spaces, place)
    return {name: frame for name, frame in frames.items() if frame.height}, troubles


def missed_pods(known: pl.DataFrame, there: Collection[str], now: datetime) -> pl.DataFrame:
    """Return the open pods of the store that are not `there` any more (by UID), ended at `now`: the latest possible."""
    missed = known.filter(pl.col("ends_at").is_null(), ~pl.col("pod_uid").is_in(list(there)))
    end = pl.max_horizontal(pl.lit(now, POD.schema()["ends_at"]), pl.coalesce("starts_at", "created_at"))
    return missed.with_columns(ends_at=end)


def missed_jobs(known: pl.DataFrame, there: Iterable[WorkloadFacts], now: datetime) -> pl.DataFrame:
    """Return the open jobs of the store that came from Kueue and are not `there` any more, as cancelled at `now`."""
    ids = [job_id(each) for each in there]
    ours = pl.col("job_id").str.count_matches("/") == 2  # noqa: PLR2004 - namespace/name/uid, as `job_id` writes it
    missed = known.filter(pl.col("ended_at").is_null(), ours, ~pl.col("job_id").is_in(ids))
    return missed.with_columns(ended_at=pl.lit(now, JOB.schema()["ended_at"]), status=pl.lit("cancelled"))


def _cluster_frame(view: View, place: Place) -> pl.DataFrame:
    provider, region = provider_and_region(view.nodes or ())
    row = {
        "cluster": place.cluster, "context": place.context, "provider": provider, "region": region,
        "last_seen_at": place.now,
    }  # fmt: skip
    return _frame([row], CLUSTER)


def _members(namespaces: Iterable[SpaceFacts], known: Known, place: Place) -> pl.DataFrame:
    wanted = [
        {
            "cluster": place.cluster,
            "namespace": each.name,
            "workspace": each.workspace,
            "starts_at": each.created_at or place.now,
        }
        for each in namespaces
        if each.workspace is not None
    ]
    return changes(known.members, _frame(wanted, WORKSPACE_MEMBER), ("cluster", "namespace"), place.now)


def _pod_frame(view: View, known: Known, place: Place, rows: Sequence[Row]) -> pl.DataFrame:
    """Return the pods that are new or changed, and the end of those that went while nobody looked."""
    told = _frame(rows, POD)
    if view.pods is None:
        return told
    there = {pod.uid for pod in (*view.pods, *view.gone_pods)}
    return pl.concat([told, missed_pods(known.pods, there, place.now)])


def _job_frame(view: View, known: Known, place: Place, rows: Sequence[Row]) -> pl.DataFrame:
    told = _frame(rows, JOB)
    if view.kueue.workloads is None or not view.kueue.is_installed:
        return told
    there = (*view.kueue.workloads, *view.gone_workloads)
    return pl.concat([told, missed_jobs(known.jobs, there, place.now)])


def _pod_rows(
    pods: Iterable[PodFacts], view: View, around: Around, spaces: Mapping[str, SpaceFacts] | None, place: Place
) -> Iterable[dict[str, object]]:
    for pod in pods:
        workload = ("Pod", pod.name) if pod.controller is None else view.top(pod.controller)
        space = None if spaces is None else spaces.get(pod.namespace)
        owner = None if space is None else space.owner
        row = pod_row(pod, around, workload, _workspace(pod.namespace, spaces), owner)
        if row is not None:
            yield {"cluster": place.cluster, **row, "created_at": row["created_at"] or place.now}


def _job_rows(
    view: View, around: Around, spaces: Mapping[str, SpaceFacts] | None, place: Place
) -> Iterable[dict[str, object]]:
    for workload in (*(view.kueue.workloads or ()), *view.gone_workloads):
        row = job_row(workload, _workspace(workload.namespace, spaces), view.kueue.flavors, around.common)
        if row is not None:
            yield {"cluster": place.cluster, **row}


def _workspace(namespace: str, spaces: Mapping[str, SpaceFacts] | None) -> str | None:
    """Return the workspace of a namespace: itself where it has no label, None where namespaces could not be read."""
    if spaces is None:
        return None
    space = spaces.get(namespace)
    return namespace if space is None or space.workspace is None else space.workspace


def _quota_rows(view: View, around: Around, spaces: Mapping[str, SpaceFacts] | None) -> list[Row] | None:
    """Return what workspaces may count on; None where not all of it could be read.

    Where Kueue grants a workspace GPUs, that is its quota, and the resource quota around it only a ceiling.
    """
    if spaces is None or view.quotas is None or view.nodes is None or view.kueue.queues is None:
        return None
    workspace_of = {name: each.workspace or name for name, each in spaces.items()}
    by_queue = queue_quotas(view.kueue, workspace_of, around.common)
    queued = {row["workspace"] for row in by_queue}
    plain = granted(view.quotas, workspace_of, {**view.claims.classes, **around.common})
    return [*by_queue, *(row for row in plain if row["workspace"] not in queued)]


def _queue_frame(view: View, around: Around, spaces: Mapping[str, SpaceFacts], place: Place) -> pl.DataFrame:
    workspace_of = {name: each.workspace or name for name, each in spaces.items()}
    rows = queue_rows(view.kueue, workspace_of, around.common)
    return _frame([{"cluster": place.cluster, **row, "last_seen_at": place.now} for row in rows], QUEUE)


def _quotas(rights: Iterable[Row], known: Known, place: Place) -> pl.DataFrame:
    wanted = [{"cluster": place.cluster, **row, "starts_at": row["starts_at"] or place.now} for row in rights]
    return changes(known.quotas, _frame(wanted, QUOTA), ("cluster", "workspace", "pool", "model"), place.now)


def _demand(
    view: View, around: Around, spaces: Mapping[str, SpaceFacts]
) -> tuple[dict[str, dict[str, float]], list[Trouble]]:
    """Return GPUs and jobs running and waiting by workspace; what waits in Kueue is counted there, not as its pods."""
    demand: dict[str, dict[str, float]] = defaultdict(lambda: dict(_NOTHING))
    unclear: list[str] = []
    for pod in view.pods or ():
        is_queued = pod.is_held_by_kueue and view.kueue.is_installed and view.kueue.workloads is not None
        if pod.ends_at is not None or is_queued:
            continue
        gpus, known = wants(pod, around)
        if gpus is None and (is_of_gpus(pod, known) or not view.claims.is_known):
            unclear.append(f"{pod.namespace}/{pod.name}")
        elif gpus is not None and is_of_gpus(pod, known):
            what = "pending" if pod.node is None else "running"
            _add(demand[str(_workspace(pod.namespace, spaces))], what, gpus)
    for workload in (each for each in view.kueue.workloads or () if each.waits):
        gpus = gpus_wanted(workload, around.common)
        if gpus is None:
            unclear.append(f"{workload.namespace}/{workload.name}")
        else:
            _add(demand[str(_workspace(workload.namespace, spaces))], "pending", gpus)
    if not unclear:
        return demand, []
    reason = "nobody knows how much of a GPU it asks for: no label of a node, or no resource claim, tells"
    return demand, [Trouble("rejected", "pods", reason, len(unclear), unclear[0])]


def _add(row: dict[str, float], what: str, gpus: float) -> None:
    row[f"{what}_gpus"] += gpus
    row[f"{what}_jobs"] += 1


def _demand_frame(
    demand: Mapping[str, Mapping[str, float]],
    rights: Sequence[Row] | None,
    known: Known,
    spaces: Mapping[str, SpaceFacts],
    place: Place,
) -> pl.DataFrame:
    """Return a sample of each workspace; one that had demand and has none now is at zero: all pods were looked at."""
    capacity: defaultdict[str, float] = defaultdict(float)
    for right in rights or ():
        capacity[str(right["workspace"])] += float(str(right["gpus"]))
    labelled = {each.workspace for each in spaces.values() if each.workspace is not None}
    rows = [
        {"cluster": place.cluster, "workspace": workspace, "ts": place.now, **demand.get(workspace, _NOTHING),
         "capacity_gpus": capacity.get(workspace)}
        for workspace in sorted({*demand, *capacity, *known.workspaces, *labelled})
    ]  # fmt: skip
    return _frame(rows, DEMAND_SAMPLE)


def _frame(rows: Sequence[Row], table: Table) -> pl.DataFrame:
    return conform(pl.DataFrame(rows, schema=table.schema("wire")) if rows else table.empty("wire"), table, "wire")
