"""Kueue's queues and workloads: quotas by workspace and flavor, jobs with their times, and what waits.

A workload that waits has no pods, or only gated ones: its own pod sets tell what it wants. A cluster queue speaks for
the workspace that its label names, else for the one workspace whose local queues lead to it, else for itself.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from collectors.cluster_gpus import asked, gpus_of, is_gpu, model_of, quantity
from collectors.cluster_kueue_objects import (
    ClusterQueue,
    ClusterQueueStatus,
    LocalQueue,
    ResourceFlavor,
    ResourceGrant,
    Workload,
)
from collectors.cluster_nodes import POOLS
from collectors.cluster_objects import Condition

_FAILED = frozenset({"Failed"})
_SUCCEEDED = frozenset({"Succeeded", "JobFinished"})


@dataclass(frozen=True, slots=True)
class FlavorFacts:
    """The kind of nodes that a flavor is."""

    pool: str | None
    model: str | None


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """What a cluster queue grants and how it stands; grants: flavor, resource, nominal, to borrow (None: no limit)."""

    name: str
    label: str | None
    created_at: datetime | None
    grants: tuple[tuple[str, str, float, float | None], ...]
    status: ClusterQueueStatus


@dataclass(frozen=True, slots=True)
class WorkloadFacts:
    """What is kept of a workload between looks."""

    uid: str
    namespace: str
    name: str
    sets: tuple[tuple[Mapping[str, float], int, str | None], ...]
    flavors: tuple[str, ...]
    priority: str | None
    submitted_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    status: str
    waits: bool


@dataclass(frozen=True, slots=True)
class Kueue:
    """What Kueue tells. Where it is not installed, nothing; where it could not be read, None.

    `queues` is None too where flavors or local queues, without which a queue says nothing, could not be read.
    """

    queues: Collection[QueueFacts] | None = ()
    local_queues: Collection[tuple[str, str]] = ()
    flavors: Mapping[str, FlavorFacts] = field(default_factory=dict)
    workloads: Collection[WorkloadFacts] | None = ()
    is_installed: bool = False


def flavor_facts(flavor: ResourceFlavor) -> FlavorFacts:
    """Return the pool and the GPU model that a flavor's node labels name."""
    labels = flavor.spec.node_labels or {}
    return FlavorFacts(next((labels[name] for name in POOLS if labels.get(name)), None), model_of(labels))


def local_queue_facts(queue: LocalQueue) -> tuple[str, str]:
    """Return a local queue's namespace and the cluster queue it leads to."""
    return queue.metadata.namespace, queue.spec.cluster_queue


def queue_facts(label: str, queue: ClusterQueue) -> QueueFacts | None:
    """Return what a cluster queue grants of GPUs; None where it has none. Without a cohort nothing can be borrowed."""
    can_borrow = bool(queue.spec.cohort_name or queue.spec.cohort)
    grants = []
    for group in queue.spec.resource_groups or ():
        for flavor in group.flavors or ():
            for grant in flavor.resources or ():
                nominal = quantity(grant.nominal_quota)
                if is_gpu(grant.name) and nominal is not None:
                    grants.append((flavor.name, grant.name, nominal, _limit(grant) if can_borrow else 0.0))
    meta = queue.metadata
    if not grants:
        return None
    return QueueFacts(meta.name, meta.label(label), meta.creation_timestamp, tuple(grants), queue.status)


def workload_facts(workload: Workload) -> WorkloadFacts | None:
    """Return what matters of a workload; None where it wants no GPUs."""
    spec, status = workload.spec, workload.status
    sets = tuple(
        (amounts, each.count, model_of(each.template.spec.node_selector or {}))
        for each in spec.pod_sets or ()
        if (amounts := asked(each.template.spec))
    )
    if not sets:
        return None
    finished, admitted = _true(status.conditions, "Finished"), _true(status.conditions, "Admitted")
    reserved = admitted or _true(status.conditions, "QuotaReserved")
    assignments = () if status.admission is None else status.admission.pod_set_assignments or ()
    flavors = {name for each in assignments for resource, name in (each.flavors or {}).items() if is_gpu(resource)}
    return WorkloadFacts(
        uid=workload.metadata.uid,
        namespace=workload.metadata.namespace,
        name=workload.metadata.name,
        sets=sets,
        flavors=tuple(sorted(flavors)),
        priority=_priority(workload),
        submitted_at=workload.metadata.creation_timestamp,
        started_at=None if admitted is None else admitted.last_transition_time,
        ended_at=None if finished is None else finished.last_transition_time,
        status=_status(finished, admitted),
        waits=finished is None and reserved is None and spec.active,
    )


def ended(workload: WorkloadFacts, seen_gone_at: datetime) -> WorkloadFacts:
    """Return a workload that has gone away with its end: it was cancelled, unless it had finished."""
    if workload.ended_at is not None:
        return workload
    return replace(workload, ended_at=seen_gone_at, status="cancelled", waits=False)


def job_id(workload: WorkloadFacts) -> str:
    """Return the id of a workload as a job: readable, and its own even where the name is used again."""
    return f"{workload.namespace}/{workload.name}/{workload.uid}"


def job_row(
    workload: WorkloadFacts,
    workspace: str | None,
    flavors: Mapping[str, FlavorFacts],
    common: Mapping[str, float | None],
) -> dict[str, object] | None:
    """Return the row of the table `job` without its cluster; None where nobody knows how many GPUs it wants."""
    gpus = gpus_wanted(workload, common)
    if gpus is None or workload.submitted_at is None:
        return None
    models = {flavors[name].model for name in workload.flavors if name in flavors} or {
        model for _, _, model in workload.sets
    }
    return {
        "job_id": job_id(workload),
        "workspace": workspace,
        "model": next(iter(models)) if len(models) == 1 else None,
        "gpus": gpus,
        "priority": workload.priority,
        "submitted_at": workload.submitted_at,
        "started_at": workload.started_at,
        "ended_at": workload.ended_at,
        "status": workload.status,
    }


def gpus_wanted(workload: WorkloadFacts, common: Mapping[str, float | None]) -> float | None:
    """Return the whole GPUs that all pods of a workload want; None where nobody knows."""
    total = 0.0
    for amounts, count, _ in workload.sets:
        each = gpus_of(amounts, common)
        if each is None:
            return None
        total += each * count
    return total


def queue_quotas(
    kueue: Kueue, workspace_of: Mapping[str, str], common: Mapping[str, float | None]
) -> list[dict[str, object]]:
    """Return quota rows (without cluster and start of what is new) by workspace, pool and model.

    Flavors that are the same pool and model add up; where one has no limit to borrow, the sum has none.
    """
    speaks_for = workspaces_of(kueue, workspace_of)
    rows: dict[tuple[str, str | None, str | None], dict[str, object]] = {}
    for queue in sorted(kueue.queues or (), key=lambda each: each.name):
        workspace = speaks_for[queue.name]
        for flavor, resource, nominal, borrowing in queue.grants:
            unit = gpus_of({resource: 1.0}, common)
            if unit is None:
                continue
            place = kueue.flavors.get(flavor, FlavorFacts(None, None))
            key = (workspace, place.pool, place.model)
            row = rows.setdefault(
                key,
                {"workspace": workspace, "pool": place.pool, "model": place.model, "gpus": 0.0, "borrowing_gpus": 0.0,
                 "starts_at": queue.created_at},
            )  # fmt: skip
            row["gpus"] = _plus(row["gpus"], nominal * unit)
            row["borrowing_gpus"] = _plus(row["borrowing_gpus"], None if borrowing is None else borrowing * unit)
    return list(rows.values())


def workspaces_of(kueue: Kueue, workspace_of: Mapping[str, str]) -> dict[str, str]:
    """Return the workspace that each cluster queue speaks for."""
    leads: defaultdict[str, set[str]] = defaultdict(set)
    for namespace, name in kueue.local_queues:
        leads[name].add(workspace_of.get(namespace, namespace))
    return {
        queue.name: queue.label or (next(iter(led)) if len(led := leads[queue.name]) == 1 else queue.name)
        for queue in kueue.queues or ()
    }


def _plus(sum_: object, more: float | None) -> float | None:
    return None if more is None or not isinstance(sum_, float) else sum_ + more


def _limit(grant: ResourceGrant) -> float | None:
    return None if grant.borrowing_limit is None else quantity(grant.borrowing_limit)


def _true(conditions: Iterable[Condition] | None, name: str) -> Condition | None:
    return next((each for each in conditions or () if each.type == name and each.status == "True"), None)


def _status(finished: Condition | None, admitted: Condition | None) -> str:
    if finished is None:
        return "pending" if admitted is None else "running"
    if finished.reason in _SUCCEEDED:
        return "succeeded"
    return "failed" if finished.reason in _FAILED else "cancelled"


def _priority(workload: Workload) -> str | None:
    spec = workload.spec
    named = spec.priority_class_name or (spec.priority_class_ref.name if spec.priority_class_ref is not None else "")
    return named or (None if spec.priority is None else str(spec.priority))
