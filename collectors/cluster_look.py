"""One look at a cluster: every kind that matters brought up to now side by side, and what they say put together."""

from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import TypeVar

import msgspec

from collectors.cluster_claims import ClaimFacts, Claims, DeviceFacts, claim_facts, class_part, slice_devices
from collectors.cluster_events import FaultFacts, fault_facts
from collectors.cluster_kueue import (
    FlavorFacts,
    Kueue,
    QueueFacts,
    WorkloadFacts,
    ended,
    flavor_facts,
    local_queue_facts,
    queue_facts,
    workload_facts,
)
from collectors.cluster_kueue_objects import ClusterQueue, LocalQueue, ResourceFlavor, Workload
from collectors.cluster_nodes import NodeFacts, node_facts
from collectors.cluster_objects import (
    DeviceClass,
    Event,
    Named,
    Node,
    OwnerReference,
    Part,
    Pod,
    ResourceClaim,
    ResourceQuota,
    ResourceSlice,
)
from collectors.cluster_pods import PodFacts, closed, pod_facts
from collectors.cluster_rows import View
from collectors.cluster_spaces import WORKSPACE, QuotaFacts, SpaceFacts, quota_facts, space_facts
from collectors.cluster_watch import Follower, HasMeta, Kind, Refused, Server
from fleet.batch import Trouble
from fleet.errors import SourceFailed

RBAC = "deploy/collector-rbac.yaml"
_SIDE_BY_SIDE = 8
_DRA, _KUEUE = "resource.k8s.io", "kueue.x-k8s.io"
# The versions we can read, best first.
_VERSIONS = {_DRA: ("v1", "v1beta2", "v1beta1"), _KUEUE: ("v1beta2", "v1beta1")}
_T = TypeVar("_T", bound=HasMeta)
_F = TypeVar("_F")


class _Version(Part, frozen=True):
    version: str


class _Group(Part, frozen=True):
    name: str
    versions: list[_Version] = []


class _Groups(Part, frozen=True):
    groups: list[_Group]


@dataclass(frozen=True, slots=True)
class _Core:
    nodes: Follower[Node, NodeFacts]
    pods: Follower[Pod, PodFacts]
    namespaces: Follower[Named, SpaceFacts]
    quotas: Follower[ResourceQuota, QuotaFacts]
    events: Follower[Event, FaultFacts]

    def all(self) -> tuple["_Any", ...]:
        return self.nodes, self.pods, self.namespaces, self.quotas, self.events


@dataclass(frozen=True, slots=True)
class _Dra:
    version: str
    claims: Follower[ResourceClaim, tuple[str, str, ClaimFacts]]
    slices: Follower[ResourceSlice, dict[tuple[str, str], DeviceFacts]]
    classes: Follower[DeviceClass, tuple[str, float | None]]

    def all(self) -> tuple["_Any", ...]:
        return self.claims, self.slices, self.classes


@dataclass(frozen=True, slots=True)
class _Queues:
    version: str
    queues: Follower[ClusterQueue, QueueFacts]
    local: Follower[LocalQueue, tuple[str, str]]
    flavors: Follower[ResourceFlavor, tuple[str, FlavorFacts]]
    workloads: Follower[Workload, WorkloadFacts]

    def all(self) -> tuple["_Any", ...]:
        return self.queues, self.local, self.flavors, self.workloads


class _Any:
    """What the followers of all kinds have in common; see `Follower`."""
