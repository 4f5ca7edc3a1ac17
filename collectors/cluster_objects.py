"""What we read of Kubernetes objects: only the fields that become rows, so that the rest is never built.

Field names and meanings are those of the public API reference (core/v1, resource.k8s.io/v1, kueue.x-k8s.io/v1beta2 and
the versions before them that are still served). What an object does not say is None or empty.
"""

from datetime import datetime
from typing import Annotated

import msgspec

Quantity = str | int | float
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Part(msgspec.Struct, rename="camel", frozen=True, gc=False):
    """A piece of an object: unknown fields are skipped, names are camelCase on the wire."""


class OwnerReference(Part, frozen=True):
    """Who an object belongs to."""

    kind: str
    name: str
    uid: str
    api_version: str = ""
    controller: bool | None = None


class Meta(Part, frozen=True):
    """What every object says of itself."""

    name: str
    uid: str = ""
    namespace: str = ""
    resource_version: str = ""
    creation_timestamp: Moment | None = None
    deletion_timestamp: Moment | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[OwnerReference] | None = None

    def label(self, name: str) -> str | None:
        """Return a label, None where it is not there or empty."""
        return (self.labels or {}).get(name) or None

    def annotation(self, name: str) -> str | None:
        """Return an annotation, None where it is not there or empty."""
        return (self.annotations or {}).get(name) or None

    def controller(self) -> OwnerReference | None:
        """Return the owner that manages this object, None where nobody does."""
        return next((owner for owner in self.owner_references or () if owner.controller), None)


class Named(Part, frozen=True):
    """An object of which only its metadata matters: a namespace, an owner, a bookmark."""

    metadata: Meta


class Condition(Part, frozen=True):
    """One condition of an object."""

    type: str
    status: str
    reason: str | None = None
    message: str | None = None
    last_transition_time: Moment | None = None


# Pods


class Resources(Part, frozen=True):
    """What a container asks for."""

    requests: dict[str, Quantity] | None = None
    limits: dict[str, Quantity] | None = None


class Container(Part, frozen=True):
    """One container of a pod; an init container with restartPolicy Always is a sidecar."""

    resources: Resources | None = None
    restart_policy: str | None = None


class ClaimReference(Part, frozen=True):
    """A resource claim that a pod names, or (in its status) the one that was made for it."""

    name: str
    resource_claim_name: str | None = None


class Gate(Part, frozen=True):
    """What holds a pod back from being scheduled."""

    name: str


class PodSpec(Part, frozen=True):
    """What a pod should be."""

    node_name: str | None = None
    containers: list[Container] | None = None
    init_containers: list[Container] | None = None
    resource_claims: list[ClaimReference] | None = None
    scheduling_gates: list[Gate] | None = None
    node_selector: dict[str, str] | None = None
    overhead: dict[str, Quantity] | None = None


class Terminated(Part, frozen=True):
    """How a container ended."""

    finished_at: Moment | None = None


class ContainerState(Part, frozen=True):
    """What a container does now."""

    terminated: Terminated | None = None


class ContainerStatus(Part, frozen=True):
    """What became of a container."""

    state: ContainerState | None = None


class ExtendedClaim(Part, frozen=True):
    """The claim that the scheduler made for extended resources of a pod."""

    resource_claim_name: str | None = None


class PodStatus(Part, frozen=True):
    """What a pod is."""

    phase: str | None = None
    start_time: Moment | None = None
    conditions: list[Condition] | None = None
    container_statuses: list[ContainerStatus] | None = None
    init_container_statuses: list[ContainerStatus] | None = None
    resource_claim_statuses: list[ClaimReference] | None = None
    extended_resource_claim_status: ExtendedClaim | None = None


class Pod(Part, frozen=True):
    """A pod."""

    metadata: Meta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


# Nodes, quotas, events


class Taint(Part, frozen=True):
    """What keeps pods off a node."""

    key: str
    effect: str
    value: str | None = None


class NodeSpec(Part, frozen=True):
    """What a node should be."""

    unschedulable: bool = False
    taints: list[Taint] | None = None
    provider_id: str = msgspec.field(name="providerID", default="")


class NodeStatus(Part, frozen=True):
    """What a node is."""

    capacity: dict[str, Quantity] | None = None
    allocatable: dict[str, Quantity] | None = None
    conditions: list[Condition] | None = None


class Node(Part, frozen=True):
    """A node."""

    metadata: Meta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class ResourceQuotaSpec(Part, frozen=True):
    """What a resource quota allows."""

    hard: dict[str, Quantity] | None = None


class ResourceQuota(Part, frozen=True):
    """A resource quota of a namespace."""

    metadata: Meta
    spec: ResourceQuotaSpec = ResourceQuotaSpec()


class Involved(Part, frozen=True):
    """What an event is about."""

    kind: str = ""
    name: str = ""


class Series(Part, frozen=True):
    """How often an event came again."""

    last_observed_time: Moment | None = None


class Event(Part, frozen=True):
    """An event that somebody told the API server of."""

    metadata: Meta
    involved_object: Involved = Involved()
    reason: str | None = None
    message: str | None = None
    first_timestamp: Moment | None = None
    last_timestamp: Moment | None = None
    event_time: Moment | None = None
    series: Series | None = None


# Dynamic resource allocation


class ExactRequest(Part, frozen=True):
    """How many devices of which class a claim asks for."""

    device_class_name: str = ""
    count: int | None = None
    allocation_mode: str | None = None
    admin_access: bool | None = None


class DeviceRequest(Part, frozen=True):
    """One request of a claim; before v1 its fields stood here themselves."""

    name: str = ""
    exactly: ExactRequest | None = None
    first_available: list[ExactRequest] | None = None
    device_class_name: str = ""
    count: int | None = None
    allocation_mode: str | None = None
    admin_access: bool | None = None


class ClaimDevices(Part, frozen=True):
    """What a claim asks for."""

    requests: list[DeviceRequest] | None = None


class ClaimSpec(Part, frozen=True):
    """What a claim should be."""

    devices: ClaimDevices = ClaimDevices()


class DeviceResult(Part, frozen=True):
    """One device that was given to a claim."""

    driver: str = ""
    pool: str = ""
    device: str = ""
    request: str = ""
    admin_access: bool | None = None


class AllocatedDevices(Part, frozen=True):
    """The devices of a claim."""

    results: list[DeviceResult] | None = None


class Allocation(Part, frozen=True):
    """What a claim was given."""

    devices: AllocatedDevices = AllocatedDevices()


class Consumer(Part, frozen=True):
    """Who uses a claim."""

    resource: str = ""
    name: str = ""
    uid: str = ""


class ClaimStatus(Part, frozen=True):
    """What a claim is."""

    allocation: Allocation | None = None
    reserved_for: list[Consumer] | None = None


class ResourceClaim(Part, frozen=True):
    """A claim on devices."""

    metadata: Meta
    spec: ClaimSpec = ClaimSpec()
    status: ClaimStatus = ClaimStatus()


class Attribute(Part, frozen=True):
    """One attribute of a device; only texts matter to us."""

    string: str | None = None


class BasicDevice(Part, frozen=True):
    """A device as it stood before v1."""

    attributes: dict[str, Attribute] | None = None


class Device(Part, frozen=True):
    """A device that a driver offers."""

    name: str
    attributes: dict[str, Attribute] | None = None
    basic: BasicDevice | None = None


class Pool(Part, frozen=True):
    """Where devices belong to."""

    name: str = ""


class SliceSpec(Part, frozen=True):
    """What a driver offers on a node."""

    driver: str = ""
    node_name: str | None = None
    pool: Pool = Pool()
    devices: list[Device] | None = None


class ResourceSlice(Part, frozen=True):
    """Devices that a driver offers."""

    metadata: Meta
    spec: SliceSpec = SliceSpec()


class Cel(Part, frozen=True):
    """A condition in CEL."""

    expression: str = ""


class Selector(Part, frozen=True):
    """How a class chooses devices."""

    cel: Cel | None = None


class DeviceClassSpec(Part, frozen=True):
    """What a class of devices is."""

    selectors: list[Selector] | None = None
    extended_resource_name: str | None = None


class DeviceClass(Part, frozen=True):
    """A class of devices."""

    metadata: Meta
    spec: DeviceClassSpec = DeviceClassSpec()
