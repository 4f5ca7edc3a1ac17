"""What a Cluster over a world shows: nodes, GPUs, MIG devices, pods, workloads, quotas and pools as they stand now."""

import re
from collections import defaultdict
from types import MappingProxyType

import numpy as np

from fleet.mig_layouts import WHOLE_SLOT, slot_name
from fleet.state import FleetState, Gpu, Node, ObjectRef, Pod, PoolLimit, Quota, Slice, Workload
from simulator.slices import SliceLife
from simulator.world import PodRecord, QuotaRecord, World

DRIVER = "580.95.05"


def observe(world: World, cluster: str | None = None) -> FleetState:
    """Return the state of one cluster, or of all; `taken_at` is the world's present."""
    names = [each.name for each in world.spec.clusters]
    seen = {index for index, name in enumerate(names) if cluster in {None, name}}
    fabric = world.fabric
    there = np.flatnonzero(world.node_is_there).tolist()
    nodes = [node for node in there if int(fabric.node_cluster[node]) in seen]
    gpus = [gpu for node in nodes for gpu in fabric.gpus_of_node(node)]
    places = [unit for gpu in gpus if fabric.gpu_is_mig[gpu] for unit in fabric.units_of_gpu(gpu)]
    lives = [life for unit in places if (life := world.slices.now(unit)) is not None]
    pods = _running_pods(world, seen)
    return FleetState(
        taken_at=world.now,
        gpus=tuple(_gpu(world, gpu) for gpu in gpus),
        slices=tuple(_slice(world, life) for life in lives),
        nodes=tuple(_node(world, node) for node in nodes),
        pods=tuple(_pod(world, pod) for records in pods.values() for pod in records),
        workloads=tuple(
            _workload(world, index, pods[index])
            for index in world.live_workloads
            if world.workloads[index].cluster in seen
        ),
        quotas=tuple(_quota(world, quota) for quota in world.quota_now.values() if quota.cluster in seen),
        pools=tuple(_pool(world, *key) for key in world.pool_limits if key[0] in seen),
    )


def _running_pods(world: World, clusters: set[int]) -> defaultdict[int, list[PodRecord]]:
    result: defaultdict[int, list[PodRecord]] = defaultdict(list)
    for index in world.live_workloads:
        if world.workloads[index].cluster in clusters:
            for task in world.workloads[index].live:
                result[index].extend(world.pods[pod] for pod in world.tasks[task].pods)
    return result


def cluster_name(world: World, node: int) -> str:
    """Return the name of the cluster a node is in."""
    return world.spec.clusters[int(world.fabric.node_cluster[node])].name


def _gpu(world: World, gpu: int) -> Gpu:
    node = int(world.fabric.gpu_node[gpu])
    model = world.fabric.model_of(gpu)
    return Gpu(
        uuid=world.fabric.gpu_uuid[gpu],
        cluster=cluster_name(world, node),
        node=world.fabric.node_name[node],
        index=int(world.fabric.gpu_index[gpu]),
        model=model.name,
        memory_mib=model.memory_mib,
        is_mig_enabled=bool(world.fabric.gpu_is_mig[gpu]),
        is_fenced=bool(world.gpu_is_fenced[gpu]),
    )


def _slice(world: World, life: SliceLife) -> Slice:
    gpu = int(world.fabric.unit_gpu[life.unit])
    return Slice(
        uuid=life.uuid,
        gpu_uuid=world.fabric.gpu_uuid[gpu],
        profile=life.profile,
        gpu_instance=life.unit - int(world.fabric.gpu_first_unit[gpu]) + 1,
        compute_instance=0,
    )


def _node(world: World, node: int) -> Node:
    orders = world.orders[node]
    return Node(
        cluster=cluster_name(world, node),
        name=world.fabric.node_name[node],
        pool=world.fabric.sections[int(world.fabric.node_section[node])].pool.name,
        rack=world.fabric.node_rack[node],
        is_ready=bool(world.node_boot_count[node] == 0),
        is_schedulable=bool(world.node_is_schedulable[node]),
        cordoned_by=world.node_cordoned_by[node],
        labels=MappingProxyType(labels_of_node(world, node)),
        resource_version=str(int(world.node_version[node])),
        cordon_cause=orders.cordon_cause,
        taints=MappingProxyType(dict(orders.taints)),
        drain=orders.drain,
        repair=orders.repair,
        mark=orders.mark,
        mig_layout=orders.layout,
        mig_state=orders.layout_state,
        sharing=orders.sharing,
        slots=MappingProxyType(slots_of_node(world, node)),
    )


def labels_of_node(world: World, node: int) -> dict[str, str]:
    """Return the labels that GPU feature discovery, the MIG manager and we would have left on a node."""
    section, orders = world.fabric.sections[int(world.fabric.node_section[node])], world.orders[node]
    told = {
        "nvidia.com/gpu.product": section.model.name.replace(" ", "-"),
        "nvidia.com/cuda.driver-version.full": DRIVER,
        "nvidia.com/mig.config": orders.layout,
        "nvidia.com/mig.config.state": orders.layout_state,
        "nvidia.com/device-plugin.config": orders.sharing,
    }
    return {name: value for name, value in told.items() if value is not None}


def slots_of_node(world: World, node: int) -> dict[str, int]:
    """Return what a node can give out by resource name: GPUs, or MIG devices, of boards that are not lost."""
    gpus = [gpu for gpu in world.fabric.gpus_of_node(node) if world.gpu_lost_count[gpu] == 0]
    if not world.fabric.sections[int(world.fabric.node_section[node])].is_mig:
        return {WHOLE_SLOT: len(gpus) * shared_by(world.orders[node].sharing)}
    found: dict[str, int] = {}
    for gpu in gpus:
        for profile, count in world.slices.profiles_of(world.fabric, gpu).items():
            found[slot_name(profile)] = found.get(slot_name(profile), 0) + count
    return dict(sorted(found.items()))


def shared_by(sharing: str | None) -> int:
    """Return how many pods a time-slicing profile lets share a GPU: the number its name ends with, else one."""
    found = None if sharing is None else re.search(r"(\d+)$", sharing)
    return 1 if found is None else max(1, int(found[1]))


def _pod(world: World, pod: PodRecord) -> Pod:
    fabric = world.fabric
    workload = world.workloads[world.tasks[pod.task].workload]
    gpus = dict.fromkeys(int(fabric.unit_gpu[unit]) for unit in pod.units)
    return Pod(
        cluster=world.spec.clusters[workload.cluster].name,
        namespace=workload.ref.namespace,
        name=pod.name,
        uid=pod.uid,
        node=fabric.node_name[pod.node],
        workload=workload.ref,
        gpu_uuids=tuple(fabric.gpu_uuid[gpu] for gpu in gpus),
        slice_uuids=tuple(each for each in pod.slices if each is not None),
        fraction=workload.unit_gpus,
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
        priority_boost=workload.priority_boost,
        uid=f"{index}-{workload.births}",
    )


def _quota(world: World, quota: QuotaRecord) -> Quota:
    return Quota(
        cluster=world.spec.clusters[quota.cluster].name,
        workspace=world.spec.workspaces[quota.workspace].name,
        gpus=quota.gpus,
        borrowing_gpus=quota.borrowing_gpus,
        resource_version=str(quota.version),
        lending_gpus=quota.lending_gpus,
        weight=quota.weight,
    )


def _pool(world: World, cluster: int, pool: str) -> PoolLimit:
    limit, version = world.pool_limits[cluster, pool]
    name = world.spec.clusters[cluster].name
    return PoolLimit(name, ObjectRef("NodePool", "", pool), limit, pool, str(version))
