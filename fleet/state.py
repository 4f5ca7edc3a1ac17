"""The fleet as it is at one moment: what a Cluster shows and what the planner reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

_NO_LABELS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, order=True)
class ObjectRef:
    """The name of a Kubernetes object; `namespace` is "" for cluster-scoped kinds."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """Write it as kind/namespace/name, or kind/name where it has no namespace."""
        return f"{self.kind}/{self.namespace}/{self.name}" if self.namespace else f"{self.kind}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> "ObjectRef":
        """Read back what `str` wrote."""
        kind, _, rest = text.partition("/")
        namespace, slash, name = rest.partition("/")
        return cls(kind, namespace, name) if slash else cls(kind, "", namespace)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One physical GPU.

    `fence_by` is the narrowest means that its cluster has to fence it: "device_rule" and "device_plugin" take out it
    alone, "node_taint" all of its node; None where nothing is told of that, and then it alone is meant.
    """

    uuid: str
    cluster: str
    node: str
    index: int | None = None
    model: str | None = None
    memory_mib: int | None = None
    is_mig_enabled: bool = False
    is_fenced: bool = False
    fence_by: str | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """One MIG device."""

    uuid: str
    gpu_uuid: str
    profile: str
    gpu_instance: int | None = None
    compute_instance: int | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """One node. `cordoned_by` names who made it unschedulable, where that is known, and `cordon_cause` what for.

    `taints` holds value:effect by key. What we have asked of it stands in `drain` ("node", or "gpus" and their
    UUIDs), `repair` ("reboot_node", "reset_gpu" and a UUID, ...) and `mark` (the reason of our node condition).
    `mig_layout` and `mig_state` are what the MIG manager was told and answers; `sharing` is the time-slicing profile.
    `slots` is how many of each resource with "nvidia.com/" in its name it can give out. `uid` tells it from another
    node that had its name before, "" where nobody says.
    """

    cluster: str
    name: str
    pool: str | None = None
    rack: str | None = None
    is_ready: bool = True
    is_schedulable: bool = True
    cordoned_by: str | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: _NO_LABELS)
    resource_version: str = ""
    annotations: Mapping[str, str] = field(default_factory=lambda: _NO_LABELS)
    cordon_cause: str | None = None
    taints: Mapping[str, str] = field(default_factory=lambda: _NO_LABELS)
    drain: str | None = None
    repair: str | None = None
    mark: str | None = None
    mig_layout: str | None = None
    mig_state: str | None = None
    sharing: str | None = None
    slots: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod that holds GPUs, or parts of them (`fraction` of each)."""

    cluster: str
    namespace: str
    name: str
    uid: str
    node: str
    workload: ObjectRef
    gpu_uuids: tuple[str, ...] = ()
    slice_uuids: tuple[str, ...] = ()
    fraction: float = 1.0
    started_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """The top-level owner of pods. `is_protected`: somebody asked that it be left alone.

    `queue` is the local queue it was handed in to; `priority_boost` what was added to its priority there.
    `replicas_floor` is the least that its owner, its autoscaler or a disruption budget keeps, where one says so;
    `sized_by` is the autoscaler that sets its size, and `woken_by` one that would start it again where it has none.
    `uid` tells it from another that had its name before, "" where nobody says.
    """

    cluster: str
    ref: ObjectRef
    workspace: str | None
    owner: str | None = None
    pods: tuple[str, ...] = ()
    gpu_uuids: tuple[str, ...] = ()
    replicas: int = 1
    is_suspended: bool = False
    suspended_by: str | None = None
    is_protected: bool = False
    started_at: datetime | None = None
    resource_version: str = ""
    queue: str | None = None
    priority_boost: int | None = None
    replicas_floor: int | None = None
    sized_by: str | None = None
    woken_by: str | None = None
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Quota:
    """GPUs a workspace may count on in one cluster and pool (None = any pool).

    `borrowing_gpus` is how many more it may borrow from its cohort and `lending_gpus` how many of its own others may
    borrow (None: without a limit); `weight` is its share when both sides want more. `place` is the object that holds
    it, as kind/namespace/name, where one does.
    """

    cluster: str
    workspace: str
    gpus: float
    pool: str | None = None
    model: str | None = None
    borrowing_gpus: float | None = None
    resource_version: str = ""
    lending_gpus: float | None = None
    weight: float | None = None
    place: str | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue of a workspace; `stop_policy` is None (it admits), "Hold" or "HoldAndDrain"."""

    cluster: str
    ref: ObjectRef
    workspace: str | None = None
    stop_policy: str | None = None
    resource_version: str = ""


@dataclass(frozen=True, slots=True)
class PoolLimit:
    """How far a pool may grow: GPUs of a node pool, or spare replicas of a buffer; None is no limit."""

    cluster: str
    ref: ObjectRef
    limit: float | None = None
    pool: str | None = None
    resource_version: str = ""


@dataclass(frozen=True, slots=True)
class OwnedObject:
    """An object that a workspace is made of: `body` is what we would set of it, as JSON with sorted keys.

    `owner` is whose record of ownership it bears (a workspace's name), None where it is not ours.
    """

    cluster: str
    api_version: str
    ref: ObjectRef
    body: str
    owner: str | None = None
    resource_version: str = ""


@dataclass(frozen=True, slots=True)
class FleetState:
    """Everything the planner may look at, read at one moment."""

    taken_at: datetime
    gpus: tuple[Gpu, ...] = ()
    slices: tuple[Slice, ...] = ()
    nodes: tuple[Node, ...] = ()
    pods: tuple[Pod, ...] = ()
    workloads: tuple[Workload, ...] = ()
    quotas: tuple[Quota, ...] = ()
    queues: tuple[Queue, ...] = ()
    pools: tuple[PoolLimit, ...] = ()
    objects: tuple[OwnedObject, ...] = ()
