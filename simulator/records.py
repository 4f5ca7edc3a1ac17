"""What happened in a window: who held which GPU, which jobs came and went, what logs told, what was wanted."""

import json
from bisect import bisect_left
from collections.abc import Iterable

import polars as pl

from fleet.frames import Table, conform
from fleet.mig_layouts import WHOLE_SLOT, slot_name
from fleet.tables import DEMAND_SAMPLE, EVENT, JOB, POD, POD_ALLOCATION
from simulator.inventory import Row
from simulator.lifecycle import pod_names
from simulator.world import Task, World


def records(world: World, since_s: int, until_s: int) -> dict[str, pl.DataFrame]:
    """Return what changed in `[since_s, until_s)`, told as it stood just before `until_s`.

    An allocation or a job that begins in the window and ends later is told open now and closed in a later window.
    """
    return {
        "pod": _frame(_pods(world, since_s, until_s), POD),
        "pod_allocation": _frame(_allocations(world, since_s, until_s), POD_ALLOCATION),
        "job": _frame(_jobs(world, since_s, until_s), JOB),
        "event": _frame(_events(world, since_s, until_s), EVENT),
        "demand_sample": _frame(_demand(world, since_s, until_s), DEMAND_SAMPLE),
    }


def _frame(rows: Iterable[Row], table: Table) -> pl.DataFrame:
    return conform(pl.DataFrame(list(rows), schema=table.schema("wire")), table)


def _touched(log: list[tuple[int, int]], since_s: int, until_s: int) -> list[int]:
    entries = log[bisect_left(log, (since_s,)) : bisect_left(log, (until_s,))]
    return list(dict.fromkeys(index for _, index in entries))


def _known_s(moment_s: int | None, until_s: int) -> int | None:
    return None if moment_s is None or moment_s >= until_s else moment_s


def _pods(world: World, since_s: int, until_s: int) -> Iterable[Row]:
    """Yield the pods of tasks that were submitted, began or ended, as an API server would tell of them."""
    for index in _touched(world.task_log, since_s, until_s):
        task = world.tasks[index]
        workload = world.workloads[task.workload]
        started_s, ended_s = _known_s(task.started_s, until_s), _known_s(task.ended_s, until_s)
        resource = WHOLE_SLOT if workload.profile is None else slot_name(workload.profile)
        for ordinal in range(workload.nodes):
            uid, name = pod_names(world, task, ordinal)
            is_bound = started_s is not None and ordinal < len(task.pods)
            yield {
                "cluster": world.spec.clusters[workload.cluster].name,
                "namespace": workload.ref.namespace,
                "pod": name,
                "pod_uid": uid,
                "node": world.fabric.node_name[world.pods[task.pods[ordinal]].node] if is_bound else None,
                "workload_kind": workload.ref.kind,
                "workload": workload.ref.name,
                "workspace": world.spec.workspaces[workload.workspace].name,
                "owner": workload.owner,
                "gpus": workload.width * workload.unit_gpus,
                "resources": json.dumps({resource: workload.width}),
                "phase": _phase(task, started_s, ended_s),
                "created_at": world.moment(task.submitted_s),
                "starts_at": None if started_s is None else world.moment(started_s),
                "ends_at": None if ended_s is None else world.moment(ended_s),
            }


def _phase(task: Task, started_s: int | None, ended_s: int | None) -> str:
    over = {"succeeded": "Succeeded", "failed": "Failed"}
    if ended_s is not None and task.status in over:
        return over[task.status]
    return "Pending" if started_s is None else "Running"


def _allocations(world: World, since_s: int, until_s: int) -> Iterable[Row]:
    fabric = world.fabric
    for index in _touched(world.pod_log, since_s, until_s):
        pod = world.pods[index]
        workload = world.workloads[world.tasks[pod.task].workload]
        ends_s = _known_s(pod.ends_s, until_s)
        for unit, slice_uuid in zip(pod.units, pod.slices, strict=True):
            yield {
                "cluster": world.spec.clusters[workload.cluster].name,
                "namespace": workload.ref.namespace,
                "pod": pod.name,
                "pod_uid": pod.uid,
                "container": "main",
                "workload_kind": workload.ref.kind,
                "workload": workload.ref.name,
                "workspace": world.spec.workspaces[workload.workspace].name,
                "owner": workload.owner,
                "gpu_uuid": fabric.gpu_uuid[int(fabric.unit_gpu[unit])],
                "slice_uuid": slice_uuid,
                "fraction": workload.unit_gpus,
                "starts_at": world.moment(pod.starts_s),
                "ends_at": None if ends_s is None else world.moment(ends_s),
            }


def _jobs(world: World, since_s: int, until_s: int) -> Iterable[Row]:
    for index in _touched(world.task_log, since_s, until_s):
        task = world.tasks[index]
        workload = world.workloads[task.workload]
        workspace = world.spec.workspaces[workload.workspace]
        started_s, ended_s = _known_s(task.started_s, until_s), _known_s(task.ended_s, until_s)
        yield {
            "job_id": f"{workload.ref.namespace}/{task.name}",
            "cluster": world.spec.clusters[workload.cluster].name,
            "workspace": workspace.name,
            "model": world.fabric.sections[workload.section].model.name,
            "gpus": task.gpus,
            "priority": str(workspace.priority),
            "submitted_at": world.moment(task.submitted_s),
            "started_at": None if started_s is None else world.moment(started_s),
            "ended_at": None if ended_s is None else world.moment(ended_s),
            "status": _status(task, started_s, ended_s),
        }


def _status(task: Task, started_s: int | None, ended_s: int | None) -> str:
    if ended_s is not None:
        return task.status
    return "pending" if started_s is None else "running"


def _events(world: World, since_s: int, until_s: int) -> Iterable[Row]:
    fabric, events = world.fabric, world.events
    first = bisect_left(events, since_s, key=lambda event: event.at_s)
    last = bisect_left(events, until_s, key=lambda event: event.at_s)
    for event in events[first:last]:
        yield {
            "ts": world.moment(event.at_s),
            "cluster": world.spec.clusters[int(fabric.node_cluster[event.node])].name,
            "node": fabric.node_name[event.node],
            "gpu_uuid": None if event.gpu is None else fabric.gpu_uuid[event.gpu],
            "kind": event.kind,
            "code": event.code,
            "pci_bus_id": None if event.gpu is None else fabric.gpu_bus[event.gpu],
            "message": event.message,
            "source": event.source,
        }


def _demand(world: World, since_s: int, until_s: int) -> Iterable[Row]:
    first = bisect_left(world.demand, since_s, key=lambda record: record.at_s)
    last = bisect_left(world.demand, until_s, key=lambda record: record.at_s)
    pairs = [(quota.cluster, quota.workspace) for quota in world.quota_now.values()]
    for record in world.demand[first:last]:
        ts = world.moment(record.at_s)
        for pair in pairs:
            yield {
                "cluster": world.spec.clusters[pair[0]].name,
                "workspace": world.spec.workspaces[pair[1]].name,
                "ts": ts,
                "running_gpus": float(record.running_gpus[pair]),
                "pending_gpus": float(record.pending_gpus[pair]),
                "capacity_gpus": float(record.capacity_gpus[pair]),
                "running_jobs": float(record.running_jobs[pair]),
                "pending_jobs": float(record.pending_jobs[pair]),
            }
