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
    """One physical GPU."""

    uuid: str
    cluster: str
    node: str
    index: int | None = None
    model: str | None = None
    memory_mib: int | None = None
    is_mig_enabled: bool = False
    is_fenced: bool = False


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
    """One node. `cordoned_by` names who made it unschedulable, where that is known."""

    cluster: str
    name: str
    pool: str | None = None
    rack: str | None = None
    is_ready: bool = True
    is_schedulable: bool = True
    cordoned_by: str | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: _NO_LABELS)
    resource_version: str = ""


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
    """The top-level owner of pods. `is_protected`: somebody asked that it be left alone."""

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


@dataclass(frozen=True, slots=True)
class Quota:
    """GPUs a workspace may count on in one cluster and pool (None = any pool)."""

    cluster: str
    workspace: str
    gpus: float
    pool: str | None = None
    model: str | None = None
    borrowing_gpus: float | None = None
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
