"""The followers of a cluster's kinds, typed: the core API, dynamic resource allocation, and Kueue's queues."""

from dataclasses import dataclass
from typing import Protocol

from collectors.cluster_claims import ClaimFacts, DeviceFacts, claim_facts, class_part, slice_devices
from collectors.cluster_events import FaultFacts, fault_facts
from collectors.cluster_kinds import DRA, KUEUE, kind_of
from collectors.cluster_kueue import (
    FlavorFacts,
    QueueFacts,
    WorkloadFacts,
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
    Pod,
    ResourceClaim,
    ResourceQuota,
    ResourceSlice,
)
from collectors.cluster_pods import PodFacts, pod_facts
from collectors.cluster_spaces import WORKSPACE, QuotaFacts, SpaceFacts, quota_facts, space_facts
from collectors.cluster_watch import Follower, Kind, Server


class Followed(Protocol):
    """What the followers of all kinds have in common; see `Follower`."""

    kind: Kind
    rejected: list[str]
    is_behind: bool

    def look(self, server: Server) -> None:
        """Bring it up to what the server has now."""
        ...

    def forget(self) -> None:
        """Forget everything."""
        ...


@dataclass(frozen=True, slots=True)
class Core:
    """The kinds of the core API."""

    nodes: Follower[Node, NodeFacts]
    pods: Follower[Pod, PodFacts]
    namespaces: Follower[Named, SpaceFacts]
    quotas: Follower[ResourceQuota, QuotaFacts]
    events: Follower[Event, FaultFacts]

    def all(self) -> tuple[Followed, ...]:
        """Return every follower."""
        return self.nodes, self.pods, self.namespaces, self.quotas, self.events


@dataclass(frozen=True, slots=True)
class Devices:
    """The kinds of dynamic resource allocation, in one version."""

    version: str
    claims: Follower[ResourceClaim, tuple[str, str, ClaimFacts]]
    slices: Follower[ResourceSlice, dict[tuple[str, str], DeviceFacts]]
    classes: Follower[DeviceClass, tuple[str, float | None]]

    def all(self) -> tuple[Followed, ...]:
        """Return every follower."""
        return self.claims, self.slices, self.classes


@dataclass(frozen=True, slots=True)
class Queues:
    """The kinds of Kueue, in one version."""

    version: str
    queues: Follower[ClusterQueue, QueueFacts]
    local: Follower[LocalQueue, tuple[str, str]]
    flavors: Follower[ResourceFlavor, tuple[str, FlavorFacts]]
    workloads: Follower[Workload, WorkloadFacts]

    def all(self) -> tuple[Followed, ...]:
        """Return every follower."""
        return self.queues, self.local, self.flavors, self.workloads


def core(watch_s: int) -> Core:
    """Return followers of the core API's kinds that know nothing yet."""
    return Core(
        Follower(kind_of("", "v1", "nodes"), Node, node_facts, watch_s),
        Follower(kind_of("", "v1", "pods"), Pod, pod_facts, watch_s),
        Follower(kind_of("", "v1", "namespaces"), Named, space_facts, watch_s),
        Follower(kind_of("", "v1", "resourcequotas"), ResourceQuota, quota_facts, watch_s),
        Follower(kind_of("", "v1", "events"), Event, fault_facts, watch_s),
    )


def devices(version: str, watch_s: int) -> Devices:
    """Return followers of resource claims, slices and device classes that know nothing yet."""
    return Devices(
        version,
        Follower(kind_of(DRA, version, "resourceclaims"), ResourceClaim, _claim, watch_s),
        Follower(kind_of(DRA, version, "resourceslices"), ResourceSlice, _slice, watch_s),
        Follower(kind_of(DRA, version, "deviceclasses"), DeviceClass, _class, watch_s),
    )


def queues(version: str, watch_s: int) -> Queues:
    """Return followers of Kueue's kinds that know nothing yet."""
    return Queues(
        version,
        Follower(kind_of(KUEUE, version, "clusterqueues"), ClusterQueue, _queue, watch_s),
        Follower(kind_of(KUEUE, version, "localqueues"), LocalQueue, local_queue_facts, watch_s),
        Follower(kind_of(KUEUE, version, "resourceflavors"), ResourceFlavor, _flavor, watch_s),
        Follower(kind_of(KUEUE, version, "workloads"), Workload, workload_facts, watch_s),
    )


def _claim(claim: ResourceClaim) -> tuple[str, str, ClaimFacts]:
    return claim.metadata.namespace, claim.metadata.name, claim_facts(claim)


def _slice(each: ResourceSlice) -> dict[tuple[str, str], DeviceFacts] | None:
    return slice_devices(each) or None


def _class(each: DeviceClass) -> tuple[str, float | None] | None:
    is_of_gpus, part = class_part(each)
    return (each.metadata.name, part) if is_of_gpus else None


def _queue(queue: ClusterQueue) -> QueueFacts | None:
    return queue_facts(WORKSPACE, queue)


def _flavor(flavor: ResourceFlavor) -> tuple[str, FlavorFacts]:
    return flavor.metadata.name, flavor_facts(flavor)
