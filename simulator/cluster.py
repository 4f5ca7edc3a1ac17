"""The simulated fleet as a Cluster: what is observed of it, and moves that change it."""

import json
from collections import defaultdict

from fleet.errors import MoveRefused, StaleState
from fleet.move import Move, MoveKind
from fleet.state import FleetState, Gpu, Node, Pod, Quota, Slice, Workload
from simulator.lifecycle import find_workload, resume, suspend
from simulator.world import PodRecord, QuotaRecord, World

ACTOR = "gpu-steward"


class SimulatorCluster:
    """A Cluster over a world: one of its clusters, or the whole fleet."""

    def __init__(self, world: World, cluster: str | None = None) -> None:
        """Show and move the cluster of that name; None stands for all of them together."""
        names = [each.name for each in world.spec.clusters]
        if cluster is not None and cluster not in names:
            message = f"there is no cluster {cluster}; the clusters are {', '.join(names)}"
            raise MoveRefused(message)
        self._world = world
        self._cluster = cluster

    @property
    def name(self) -> str:
        """Return the cluster's name, "simulator" for the whole fleet."""
        return self._cluster or "simulator"

    def observe(self) -> FleetState:
        """Return the fleet as it stands now."""
        return observe(self._world, self._cluster)

    def observe_for(self, move: Move) -> FleetState:  # noqa: ARG002 - the whole fleet costs little here
        """Return the fleet as it stands now."""
        return observe(self._world, self._cluster)

    def rehearse(self, move: Move) -> None:
        """Check a move without making it."""
        self._prior(move)

    def make(self, move: Move) -> str:
        """Make a move and return what it changed, as it was before, as JSON."""
        prior = self._prior(move)
        _change(self._world, move)
        return json.dumps(prior, sort_keys=True)

    def _prior(self, move: Move) -> dict[str, object]:
        names = [each.name for each in self._world.spec.clusters]
        if move.cluster not in names or (self._cluster is not None and move.cluster != self._cluster):
            message = f"{self.name} does not reach cluster {move.cluster}"
            raise MoveRefused(message)
        return _prior_of(self._world, move)


def observe(world: World, cluster: str | None = None) -> FleetState:
    """Return the state of one cluster, or of all; `taken_at` is the world's present."""
    names = [each.name for each in world.spec.clusters]
    seen = {index for index, name in enumerate(names) if cluster in {None, name}}
    fabric = world.fabric
    nodes = [node for node in range(len(fabric.node_name)) if int(fabric.node_cluster[node]) in seen]
    gpus = [gpu for node in nodes for gpu in fabric.gpus_of_node(node)]
    units = [unit for gpu in gpus if fabric.gpu_is_mig[gpu] for unit in fabric.units_of_gpu(gpu)]
    pods = _running_pods(world, seen)
    return FleetState(
        taken_at=world.now,
        gpus=tuple(_gpu(world, gpu) for gpu in gpus),
        slices=tuple(_slice(world, unit) for unit in units),
        nodes=tuple(_node(world, node) for node in nodes),
        pods=tuple(_pod(world, pod) for records in pods.values() for pod in records),
        workloads=tuple(
            _workload(world, index, pods[index])
            for index in world.live_workloads
            if world.workloads[index].cluster in seen
        ),
        quotas=tuple(_quota(world, quota) for quota in world.quota_now.values() if quota.cluster in seen),
    )


def _running_pods(world: World, clusters: set[int]) -> defaultdict[int, list[PodRecord]]:
    result: defaultdict[int, list[PodRecord]] = defaultdict(list)
    for index in world.live_workloads:
        if world.workloads[index].cluster in clusters:
            for task in world.workloads[index].live:
                result[index].extend(world.pods[pod] for pod in world.tasks[task].pods)
    return result


def _cluster_name(world: World, node: int) -> str:
    return world.spec.clusters[int(world.fabric.node_cluster[node])].name


def _gpu(world: World, gpu: int) -> Gpu:
    node = int(world.fabric.gpu_node[gpu])
    model = world.fabric.model_of(gpu)
    return Gpu(
        uuid=world.fabric.gpu_uuid[gpu],
        cluster=_cluster_name(world, node),
        node=world.fabric.node_name[node],
        index=int(world.fabric.gpu_index[gpu]),
        model=model.name,
        memory_mib=model.memory_mib,
        is_mig_enabled=bool(world.fabric.gpu_is_mig[gpu]),
        is_fenced=bool(world.gpu_is_fenced[gpu]),
    )


def _slice(world: World, unit: int) -> Slice:
    gpu = int(world.fabric.unit_gpu[unit])
    return Slice(
        uuid=str(world.fabric.unit_uuid[unit]),
        gpu_uuid=world.fabric.gpu_uuid[gpu],
        profile=world.fabric.model_of(gpu).slice_profile,
        gpu_instance=unit - int(world.fabric.gpu_first_unit[gpu]) + 1,
        compute_instance=0,
    )


def _node(world: World, node: int) -> Node:
    return Node(
        cluster=_cluster_name(world, node),
        name=world.fabric.node_name[node],
        pool=world.fabric.sections[int(world.fabric.node_section[node])].pool.name,
        rack=world.fabric.node_rack[node],
        is_ready=bool(world.node_boot_count[node] == 0),
        is_schedulable=bool(world.node_is_schedulable[node]),
        cordoned_by=world.node_cordoned_by[node],
        resource_version=str(int(world.node_version[node])),
    )


def _pod(world: World, pod: PodRecord) -> Pod:
    fabric = world.fabric
    workload = world.workloads[world.tasks[pod.task].workload]
    gpus = dict.fromkeys(int(fabric.unit_gpu[unit]) for unit in pod.units)
    slices = (fabric.unit_uuid[unit] for unit in pod.units)
    return Pod(
        cluster=world.spec.clusters[workload.cluster].name,
        namespace=workload.ref.namespace,
        name=pod.name,
        uid=pod.uid,
        node=fabric.node_name[pod.node],
        workload=workload.ref,
        gpu_uuids=tuple(fabric.gpu_uuid[gpu] for gpu in gpus),
        slice_uuids=tuple(each for each in slices if each is not None),
        fraction=fabric.sections[workload.section].unit_gpus,
        started_at=world.moment(pod.starts_s),
    )


def _workload(world: World, index: int, pods: list[PodRecord]) -> Workload:
    workload = world.workloads[index]
    gpus = dict.fromkeys(int(world.fabric.unit_gpu[unit]) for pod in pods for unit in pod.units)
    started = min((pod.starts_s for pod in pods), default=None)
    return Workload(
        cluster=world.spec.clusters[workload.cluster].name,
        ref=workload.ref,
        workspace=world.spec.workspaces[workload.workspace].name,
        owner=workload.owner,
        pods=tuple(pod.uid for pod in pods),
        gpu_uuids=tuple(world.fabric.gpu_uuid[gpu] for gpu in gpus),
        replicas=0 if workload.is_suspended else len(workload.live),
        is_suspended=workload.is_suspended,
        suspended_by=workload.suspended_by,
        is_protected=workload.is_protected,
        started_at=None if started is None else world.moment(started),
        resource_version=str(workload.version),
    )


def _quota(world: World, quota: QuotaRecord) -> Quota:
    return Quota(
        cluster=world.spec.clusters[quota.cluster].name,
        workspace=world.spec.workspaces[quota.workspace].name,
        gpus=quota.gpus,
        borrowing_gpus=quota.borrowing_gpus,
        resource_version=str(quota.version),
    )


def _prior_of(world: World, move: Move) -> dict[str, object]:
    match move.kind:
        case MoveKind.FENCE_GPU | MoveKind.UNFENCE_GPU:
            gpu = _find_gpu(world, move)
            return {"is_fenced": bool(world.gpu_is_fenced[gpu])}
        case MoveKind.CORDON_NODE | MoveKind.UNCORDON_NODE:
            node = _find_node(world, move)
            return {
                "is_schedulable": bool(world.node_is_schedulable[node]),
                "cordoned_by": world.node_cordoned_by[node],
            }
        case MoveKind.SUSPEND_WORKLOAD | MoveKind.RESUME_WORKLOAD:
            workload = world.workloads[_find_workload(world, move)]
            replicas = len(workload.paused_work_s) if workload.is_suspended else len(workload.live)
            return {
                "is_suspended": workload.is_suspended,
                "suspended_by": workload.suspended_by,
                "replicas": replicas,
            }
        case MoveKind.SET_QUOTA:
            quota = _find_quota(world, move)
            _wanted_quota(world, move, quota)
            return {"gpus": quota.gpus, "borrowing_gpus": quota.borrowing_gpus}
        case _:
            message = f"the simulated fleet can't {move.kind.value.replace('_', ' ')}"
            raise MoveRefused(message)


def _change(world: World, move: Move) -> None:
    match move.kind:
        case MoveKind.FENCE_GPU | MoveKind.UNFENCE_GPU:
            gpu, node = _find_gpu(world, move), _find_node(world, move)
            world.gpu_is_fenced[gpu] = move.kind is MoveKind.FENCE_GPU
            world.node_version[node] += 1
            world.recount(node)
        case MoveKind.CORDON_NODE | MoveKind.UNCORDON_NODE:
            node = _find_node(world, move)
            is_cordon = move.kind is MoveKind.CORDON_NODE
            world.node_is_schedulable[node] = not is_cordon
            world.node_cordoned_by[node] = _actor(move, "cordoned_by") if is_cordon else None
            world.node_version[node] += 1
            world.recount(node)
        case MoveKind.SUSPEND_WORKLOAD:
            index = _find_workload(world, move)
            if not world.workloads[index].is_suspended:
                suspend(world, index, _actor(move, "suspended_by"))
        case MoveKind.RESUME_WORKLOAD:
            index = _find_workload(world, move)
            if world.workloads[index].is_suspended:
                resume(world, index)
        case MoveKind.SET_QUOTA:
            _set_quota(world, move)


def _actor(move: Move, argument: str) -> str:
    given = move.arguments.get(argument)
    return given if isinstance(given, str) else ACTOR


def _find_node(world: World, move: Move) -> int:
    if move.target.kind != "Node":
        message = f"{move.kind.value} needs a Node, not {move.target}"
        raise MoveRefused(message)
    for node, name in enumerate(world.fabric.node_name):
        if name == move.target.name and _cluster_name(world, node) == move.cluster:
            _require_version(move, int(world.node_version[node]))
            return node
    message = f"there is no node {move.target.name} in {move.cluster}"
    raise StaleState(message)


def _find_gpu(world: World, move: Move) -> int:
    node = _find_node(world, move)
    if len(move.gpu_uuids) != 1:
        message = f"{move.kind.value} takes one GPU, not {len(move.gpu_uuids)}"
        raise MoveRefused(message)
    for gpu in world.fabric.gpus_of_node(node):
        if world.fabric.gpu_uuid[gpu] == move.gpu_uuids[0]:
            return gpu
    message = f"GPU {move.gpu_uuids[0]} is not on node {move.target.name}"
    raise StaleState(message)


def _find_workload(world: World, move: Move) -> int:
    cluster = [each.name for each in world.spec.clusters].index(move.cluster)
    index = find_workload(world, cluster, move.target)
    if index is None:
        message = f"{move.target} in {move.cluster} has ended, or never was"
        raise StaleState(message)
    workload = world.workloads[index]
    if workload.is_protected and move.kind is MoveKind.SUSPEND_WORKLOAD:
        message = f"{move.target} in {move.cluster} is protected by its owner"
        raise MoveRefused(message)
    _require_version(move, workload.version)
    return index


def _find_quota(world: World, move: Move) -> QuotaRecord:
    for quota in world.quota_now.values():
        place = (world.spec.clusters[quota.cluster].name, world.spec.workspaces[quota.workspace].name)
        if place == (move.cluster, move.target.name) and move.target.kind == "Quota":
            _require_version(move, quota.version)
            return quota
    message = f"there is no quota {move.target} in {move.cluster}"
    raise StaleState(message)


def _wanted_quota(world: World, move: Move, quota: QuotaRecord) -> tuple[float, float | None]:
    if any(move.arguments.get(name) is not None for name in ("pool", "model")):
        message = f"the quotas of {move.cluster} hold for all pools and models; leave pool and model out"
        raise MoveRefused(message)
    gpus = _number(move, "gpus", quota.gpus)
    capacity = world.spec.clusters[quota.cluster].gpus
    if gpus is None or not 0 <= gpus <= capacity:
        message = f"gpus: {gpus} is not between 0 and the {capacity} GPUs of {move.cluster}"
        raise MoveRefused(message)
    borrowing = _number(move, "borrowing_gpus", quota.borrowing_gpus)
    if borrowing is not None and not borrowing >= 0:
        message = f"borrowing_gpus: {borrowing} is below zero"
        raise MoveRefused(message)
    return gpus, borrowing


def _number(move: Move, argument: str, current: float | None) -> float | None:
    if argument not in move.arguments:
        return current
    value = move.arguments[argument]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        message = f"{argument}: {value!r} is not a number"
        raise MoveRefused(message)
    return float(value)


def _set_quota(world: World, move: Move) -> None:
    before = _find_quota(world, move)
    gpus, borrowing = _wanted_quota(world, move, before)
    version = before.version + 1
    if before.starts_s == world.now_s:
        before.gpus, before.borrowing_gpus, before.version = gpus, borrowing, version
    else:
        before.ends_s = world.now_s
        after = QuotaRecord(before.cluster, before.workspace, gpus, borrowing, world.now_s, version=version)
        world.quotas.append(after)
        world.quota_now[(before.cluster, before.workspace)] = after
    world.push_schedule()


def _require_version(move: Move, current: int) -> None:
    if move.resource_version not in {"", str(current)}:
        message = f"{move.target} in {move.cluster} is at version {current}, the plan knew {move.resource_version}"
        raise StaleState(message)
