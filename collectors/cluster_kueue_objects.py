"""What we read of Kueue's objects (kueue.x-k8s.io/v1beta2, and v1beta1 where a name was another)."""

from collectors.cluster_objects import Condition, Meta, Part, PodSpec, Quantity


class ResourceGrant(Part, frozen=True):
    """What a queue may have of one resource in one flavor."""

    name: str
    nominal_quota: Quantity
    borrowing_limit: Quantity | None = None


class FlavorGrant(Part, frozen=True):
    """What a queue may have in one flavor."""

    name: str
    resources: list[ResourceGrant] | None = None


class ResourceGroup(Part, frozen=True):
    """Resources whose flavors are chosen together."""

    flavors: list[FlavorGrant] | None = None


class ClusterQueueSpec(Part, frozen=True):
    """What a cluster queue should be; v1beta1 says `cohort` for `cohortName`."""

    cohort_name: str | None = None
    cohort: str | None = None
    resource_groups: list[ResourceGroup] | None = None


class ResourceUse(Part, frozen=True):
    """How much of one resource is taken in one flavor."""

    name: str
    total: Quantity | None = None
    borrowed: Quantity | None = None


class FlavorUse(Part, frozen=True):
    """How much is taken in one flavor."""

    name: str
    resources: list[ResourceUse] | None = None


class ClusterQueueStatus(Part, frozen=True):
    """What a cluster queue is."""

    conditions: list[Condition] | None = None
    flavors_reservation: list[FlavorUse] | None = None
    flavors_usage: list[FlavorUse] | None = None
    pending_workloads: int | None = None
    admitted_workloads: int | None = None


class ClusterQueue(Part, frozen=True):
    """A cluster queue."""

    metadata: Meta
    spec: ClusterQueueSpec = ClusterQueueSpec()
    status: ClusterQueueStatus = ClusterQueueStatus()


class LocalQueueSpec(Part, frozen=True):
    """Where a local queue leads to."""

    cluster_queue: str = ""


class LocalQueue(Part, frozen=True):
    """A queue of a namespace."""

    metadata: Meta
    spec: LocalQueueSpec = LocalQueueSpec()


class FlavorSpec(Part, frozen=True):
    """What the nodes of a flavor have in common."""

    node_labels: dict[str, str] | None = None


class ResourceFlavor(Part, frozen=True):
    """A kind of nodes."""

    metadata: Meta
    spec: FlavorSpec = FlavorSpec()


class PodTemplate(Part, frozen=True):
    """What each pod of a set will be."""

    spec: PodSpec = PodSpec()


class PodSet(Part, frozen=True):
    """Pods of a workload that are alike."""

    count: int = 1
    template: PodTemplate = PodTemplate()


class PriorityClass(Part, frozen=True):
    """The class that a priority comes from."""

    name: str = ""


class WorkloadSpec(Part, frozen=True):
    """What a workload should be; v1beta1 says `priorityClassName` for `priorityClassRef`."""

    queue_name: str | None = None
    pod_sets: list[PodSet] | None = None
    active: bool = True
    priority: int | None = None
    priority_class_name: str | None = None
    priority_class_ref: PriorityClass | None = None


class PodSetAssignment(Part, frozen=True):
    """Which flavors a set was given, by resource."""

    count: int | None = None
    flavors: dict[str, str] | None = None


class Admission(Part, frozen=True):
    """What a workload was given."""

    cluster_queue: str = ""
    pod_set_assignments: list[PodSetAssignment] | None = None


class WorkloadStatus(Part, frozen=True):
    """What a workload is."""

    conditions: list[Condition] | None = None
    admission: Admission | None = None


class Workload(Part, frozen=True):
    """What waits in a queue and is admitted as one."""

    metadata: Meta
    spec: WorkloadSpec = WorkloadSpec()
    status: WorkloadStatus = WorkloadStatus()
