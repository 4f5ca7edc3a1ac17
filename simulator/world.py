"""The world: everything that is true of the fleet at this second, and how it came to be.

`World` only holds state; `simulator.step` lets time pass, `simulator.cluster` makes moves, `simulator.source` and
`simulator.truth` tell of it. Times inside are whole seconds since the start of the fleet.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from fleet.errors import BadInput
from fleet.state import ObjectRef
from simulator.changes import NO_POD, ChangeLog
from simulator.fabric import Fabric, Flags, Ints
from simulator.slices import SliceBook
from simulator.spec import FleetSpec
from simulator.work import Kind, Phase

NAMESPACE_SUFFIX = {Kind.TRAINING: "train", Kind.NOTEBOOK: "lab", Kind.SERVING: "serve", Kind.BATCH: "train"}
CLOSING = ("NoSchedule", "NoExecute")
OBJECT_KIND = {Kind.TRAINING: "Job", Kind.NOTEBOOK: "Notebook", Kind.SERVING: "Deployment", Kind.BATCH: "Job"}


class Happening(IntEnum):
    """What stands in the agenda."""

    ARRIVAL = 0
    PHASE_END = 1
    SCHEDULE = 2
    DEMAND = 3
    FAULT_DAY = 4
    FAULT_START = 5
    FAULT_NEWS = 6
    FAULT_END = 7
    REPAIR = 8
    BOOTED = 9
    LAYOUT = 10
    JOIN = 11
    LEAVE = 12


@dataclass(slots=True)
class Workload:
    """The top-level owner of tasks: a Job has one, a Deployment one per replica.

    `unit_gpus` is how much of a GPU one of its units is, `profile` the MIG device it asks for (None: whole GPUs).
    `births` counts how often its owner deleted it and made it anew under its name.
    """

    ref: ObjectRef
    cluster: int
    workspace: int
    kind: Kind
    owner: str
    section: int
    nodes: int
    width: int
    replicas: int
    is_protected: bool
    created_s: int
    unit_gpus: float = 1.0
    profile: str | None = None
    priority_boost: int | None = None
    is_suspended: bool = False
    suspended_by: str | None = None
    version: int = 1
    births: int = 1
    live: list[int] = field(default_factory=list)
    paused_work_s: list[int] = field(default_factory=list)
    task_count: int = 0


@dataclass(slots=True)
class Task:
    """One unit of scheduling: `nodes` x `width` units at once, or nothing."""

    index: int
    name: str
    workload: int
    work_s: int
    submitted_s: int
    gpus: float
    status: str = "pending"
    started_s: int | None = None
    ended_s: int | None = None
    pods: list[int] = field(default_factory=list)
    phases: Iterator[Phase] = field(default_factory=lambda: iter(()))


@dataclass(slots=True)
class PodRecord:
    """One pod: its units on one node and the MIG devices they are, from when to when."""

    uid: str
    name: str
    task: int
    node: int
    units: list[int]
    starts_s: int
    slices: tuple[str | None, ...] = ()
    ends_s: int | None = None


@dataclass(slots=True)
class NodeOrders:
    """What was asked of a node beside its cordon; `repair_count`, `layout_count` tell one order from the next."""

    taints: dict[str, str] = field(default_factory=dict)
    cordon_cause: str | None = None
    mark: str | None = None
    drain: str | None = None
    repair: str | None = None
    repair_count: int = 0
    layout: str | None = None
    layout_state: str | None = None
    layout_count: int = 0
    sharing: str | None = None

    @property
    def is_closed(self) -> bool:
        """Return whether a taint keeps new pods away."""
        return any(each.rpartition(":")[2] in CLOSING for each in self.taints.values())


@dataclass(slots=True)
class QuotaRecord:
    """A quota, from when to when."""

    cluster: int
    workspace: int
    gpus: float
    borrowing_gpus: float | None
    starts_s: int
    ends_s: int | None = None
    version: int = 1
    lending_gpus: float | None = None
    weight: float | None = None

    @property
    def most_gpus(self) -> float:
        """Return the GPUs the workspace may hold at most."""
        return float("inf") if self.borrowing_gpus is None else self.gpus + self.borrowing_gpus


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One thing that a log or a watcher told."""

    at_s: int
    node: int
    gpu: int | None
    kind: str
    code: int | None
    message: str
    source: str


@dataclass(slots=True)
class FaultRecord:
    """One fault: the GPUs it strikes, from when to when."""

    index: int
    kind: str
    node: int
    gpus: list[int]
    is_of_one_gpu: bool
    starts_s: int
    ends_s: int
    is_repaired: bool = False


@dataclass(frozen=True, slots=True)
class Effect:
    """What a fault does to one column of one GPU's telemetry; `ends_s` None stays for ever.

    `fault` is whose effect it is, -1 where it is a boot's.
    """

    gpu: int
    column: str
    operation: str
    value: float
    starts_s: int
    ends_s: int | None
    fault: int = -1


@dataclass(frozen=True, slots=True)
class DemandRecord:
    """What each workspace (columns) held and wanted in each cluster (rows) at one moment."""

    at_s: int
    running_gpus: NDArray[np.float64]
    pending_gpus: NDArray[np.float64]
    capacity_gpus: NDArray[np.float64]
    running_jobs: Ints
    pending_jobs: Ints


@dataclass(slots=True)
class World:
    """The state of the fleet; made by `simulator.step.build`.

    `presence` has the spells in which a node was there, of those that were not always; `joining` and `leaving` (since
    when) are nodes on their way.
    """

    spec: FleetSpec
    fabric: Fabric
    changes: ChangeLog
    unit_pod: Ints
    unit_is_there: Flags
    slices: SliceBook
    free_units: Ints
    gpu_is_fenced: Flags
    gpu_lost_count: Ints
    gpu_fault_count: Ints
    node_boot_count: Ints
    node_is_there: Flags
    node_cordoned_by: list[str | None]
    node_is_schedulable: Flags
    node_version: Ints
    orders: list[NodeOrders]
    pool_limits: dict[tuple[int, str], tuple[float | None, int]]
    used_gpus: NDArray[np.float64]
    pending_gpus: NDArray[np.float64]
    running_jobs: Ints
    pending_jobs: Ints
    quota_now: dict[tuple[int, int], QuotaRecord]
    quotas: list[QuotaRecord]
    demand_rngs: list[np.random.Generator]
    arrival_rates: list[NDArray[np.float64]]
    now_s: int = 0
    is_schedule_due: bool = False
    demand_levels: dict[tuple[int, int], float] = field(default_factory=dict)
    agenda: list[tuple[int, int, Happening, int, int]] = field(default_factory=list)
    agenda_count: int = 0
    waiting: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    tasks: list[Task] = field(default_factory=list)
    workloads: list[Workload] = field(default_factory=list)
    workload_of: dict[tuple[int, ObjectRef], int] = field(default_factory=dict)
    live_workloads: dict[int, None] = field(default_factory=dict)
    pods: list[PodRecord] = field(default_factory=list)
    pod_log: list[tuple[int, int]] = field(default_factory=list)
    task_log: list[tuple[int, int]] = field(default_factory=list)
    events: list[EventRecord] = field(default_factory=list)
    demand: list[DemandRecord] = field(default_factory=list)
    faults: list[FaultRecord] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    presence: dict[int, list[tuple[int, int | None]]] = field(default_factory=dict)
    joining: set[int] = field(default_factory=set)
    leaving: dict[int, int] = field(default_factory=dict)

    @property
    def now(self) -> datetime:
        """Return the moment up to which the world has been lived."""
        return self.moment(self.now_s)

    def moment(self, at_s: int) -> datetime:
        """Return the moment `at_s` seconds after the start."""
        return self.spec.starts_at + timedelta(seconds=at_s)

    def seconds(self, moment: datetime) -> int:
        """Return seconds since the start, parts counting as a whole one; raises `BadInput` for naive times."""
        if moment.tzinfo is None:
            message = f"moment: {moment.isoformat()} has no time zone"
            raise BadInput(message, field="moment")
        return -((self.spec.starts_at - moment) // timedelta(seconds=1))

    def push(self, at_s: int, happening: Happening, index: int = 0, detail: int = 0) -> None:
        """Write into the agenda; what is written first happens first within one second."""
        self.agenda_count += 1
        heapq.heappush(self.agenda, (at_s, self.agenda_count, happening, index, detail))

    def push_schedule(self) -> None:
        """Ask the scheduler to look at its queues at its next round."""
        if not self.is_schedule_due:
            every = self.spec.schedule_interval_s
            self.push(-(-self.now_s // every) * every, Happening.SCHEDULE)
            self.is_schedule_due = True

    def is_open(self, unit: int) -> bool:
        """Tell whether a pod may begin on a unit: unit there, GPU not lost or fenced, node ready and open."""
        gpu, node = int(self.fabric.unit_gpu[unit]), int(self.fabric.unit_node[unit])
        return bool(
            self.unit_is_there[unit]
            and self.node_is_there[node]
            and self.node_is_schedulable[node]
            and not self.orders[node].is_closed
            and self.node_boot_count[node] == 0
            and self.gpu_lost_count[gpu] == 0
            and not self.gpu_is_fenced[gpu]
        )

    def recount(self, node: int) -> None:
        """Count again the units of a node that a pod may begin on."""
        units = self.fabric.units_of_node(node)
        self.free_units[node] = sum(self.unit_pod[unit] == NO_POD and self.is_open(unit) for unit in units)
        self.push_schedule()

    def was_there(self, node: int, from_s: int, until_s: int) -> bool:
        """Return whether a node was there at any second of `[from_s, until_s)`."""
        spells = self.presence.get(node, [(0, None)])
        return any(starts < until_s and (ends is None or ends > from_s) for starts, ends in spells)

    def task_of_unit(self, unit: int) -> int | None:
        """Return the task that holds a unit, None where nobody does."""
        pod = int(self.unit_pod[unit])
        return None if pod == NO_POD else self.pods[pod].task
