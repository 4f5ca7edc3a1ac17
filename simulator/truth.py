"""What was really so: the answer sheet that findings are scored against. Nothing of it reaches telemetry."""

import numpy as np
import polars as pl

from fleet.frames import UTC_MICROSECONDS
from simulator.changes import NO_POD, ints
from simulator.fabric import Flags, Ints
from simulator.fault_kinds import KINDS
from simulator.work import State
from simulator.world import World

_NAMES = {
    State.FREE: "free",
    State.LOADING: "working",
    State.WORKING: "working",
    State.IDLE_HELD: "idle_held",
    State.IDLE: "idle",
    State.STALLED: "stalled",
}
_WORK_SCHEMA = {
    "gpu_uuid": pl.String(),
    "pod_uid": pl.String(),
    "workload": pl.String(),
    "workspace": pl.String(),
    "state": pl.String(),
    "starts_at": UTC_MICROSECONDS,
    "ends_at": UTC_MICROSECONDS,
    "slice_uuid": pl.String(),
}
_FAULT_SCHEMA = {
    "fault_id": pl.String(),
    "kind": pl.String(),
    "cluster": pl.String(),
    "node": pl.String(),
    "gpu_uuid": pl.String(),
    "starts_at": UTC_MICROSECONDS,
    "ends_at": UTC_MICROSECONDS,
    "is_actionable": pl.Boolean(),
    "expected_action": pl.String(),
}


def work_intervals(world: World) -> pl.DataFrame:
    """Return what pods did with the units they held, until now.

    Columns: gpu_uuid, pod_uid, workload (kind/namespace/name), workspace, state ("working", "idle_held", "idle",
    "stalled"; loading counts as working), starts_at, ends_at (what goes on ends now), slice_uuid (null = whole GPU).
    Free units have no rows. A pause between bursts is idle however short: score with the least duration you mean.
    """
    unit, pod, state, starts_s, ends_s = _runs(world)
    rows = [
        {
            "gpu_uuid": world.fabric.gpu_uuid[int(world.fabric.unit_gpu[unit[index]])],
            "pod_uid": world.pods[pod[index]].uid,
            "workload": str(world.workloads[world.tasks[world.pods[pod[index]].task].workload].ref),
            "workspace": _workspace(world, int(pod[index])),
            "state": _STATES[int(state[index])],
            "starts_at": world.moment(int(starts_s[index])),
            "ends_at": world.moment(int(ends_s[index])),
            "slice_uuid": _slice_of(world, int(pod[index]), int(unit[index])),
        }
        for index in range(len(unit))
    ]
    return pl.DataFrame(rows, schema=_WORK_SCHEMA)


def faults(world: World) -> pl.DataFrame:
    """Return the faults that have begun.

    Columns: fault_id, kind, cluster, node, gpu_uuid (null = the whole node; one row per node), starts_at, ends_at
    (null = not over), is_actionable (somebody must do something about that GPU), expected_action. Application
    errors, boots and exporters that die are not actionable: a verdict that calls for a move there is a false alarm.
    """
    rows = [
        {
            "fault_id": f"fault-{fault.index:05d}",
            "kind": fault.kind,
            "cluster": world.spec.clusters[int(world.fabric.node_cluster[node])].name,
            "node": world.fabric.node_name[node],
            "gpu_uuid": world.fabric.gpu_uuid[fault.gpus[0]] if fault.is_of_one_gpu else None,
            "starts_at": world.moment(fault.starts_s),
            "ends_at": world.moment(fault.ends_s) if fault.ends_s <= world.now_s else None,
            "is_actionable": KINDS[fault.kind].is_actionable,
            "expected_action": KINDS[fault.kind].action,
        }
        for fault in world.faults
        for node in sorted({int(world.fabric.gpu_node[gpu]) for gpu in fault.gpus})
    ]
    return pl.DataFrame(rows, schema=_FAULT_SCHEMA)


_STATES = ("free", "idle", "idle_held", "stalled", "working")


def _runs(world: World) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """Return unit, pod, state, start and end of every stretch in which a unit did one thing for one pod."""
    changes = world.changes
    unit, pod, time_s = ints(changes.unit), ints(changes.pod), ints(changes.time_s)
    code = np.array([_STATES.index(_NAMES[State(value)]) for value in range(len(State))])
    state = code[np.array(changes.phase_state, dtype=np.int64)[ints(changes.phase)]]
    order = np.argsort(unit, kind="stable")
    unit, pod, state, time_s = unit[order], pod[order], state[order], time_s[order]
    is_new = _differs(unit) | _differs(pod) | _differs(state)
    unit, pod, state, time_s = unit[is_new], pod[is_new], state[is_new], time_s[is_new]
    ends_s = np.full(len(unit), world.now_s)
    goes_on = unit[:-1] == unit[1:]
    ends_s[:-1][goes_on] = time_s[1:][goes_on]
    kept = (pod != NO_POD) & (ends_s > time_s)
    return unit[kept], pod[kept], state[kept], time_s[kept], ends_s[kept]


def _differs(values: Ints) -> Flags:
    return np.concatenate([np.ones(1, dtype=np.bool_), values[1:] != values[:-1]])


def _slice_of(world: World, pod: int, unit: int) -> str | None:
    record = world.pods[pod]
    return record.slices[record.units.index(unit)]


def _workspace(world: World, pod: int) -> str:
    return world.spec.workspaces[world.workloads[world.tasks[world.pods[pod].task].workload].workspace].name
