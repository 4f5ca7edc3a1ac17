"""Look-ups over one fleet state, built once: who is where, who holds what, how large each pool is."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from fleet.state import FleetState, Gpu, Node, ObjectRef, OwnedObject, Pod, Quota, Workload

Place = tuple[str, str]  # cluster, name
Pool = tuple[str, str | None]  # cluster, pool


@dataclass(frozen=True, slots=True)
class FleetIndex:
    """A fleet state with its look-ups; build it with `index_of`."""

    state: FleetState
    gpus: Mapping[str, Gpu]
    nodes: Mapping[Place, Node]
    gpus_by_node: Mapping[Place, tuple[Gpu, ...]]
    gpus_by_pool: Mapping[Pool, tuple[Gpu, ...]]
    workloads_by_name: Mapping[str, tuple[Workload, ...]]
    workloads_by_gpu: Mapping[str, tuple[Workload, ...]]
    pods_by_workload: Mapping[tuple[str, ObjectRef], tuple[Pod, ...]]
    pods_by_node: Mapping[Place, tuple[Pod, ...]]
    objects: Mapping[tuple[str, str, ObjectRef], OwnedObject]

    def pool_of(self, gpu: Gpu) -> Pool:
        """Return the pool of a GPU's node; a node without one, or unknown, is in the cluster's pool None."""
        node = self.nodes.get((gpu.cluster, gpu.node))
        return (gpu.cluster, None if node is None else node.pool)

    def one_pool(self, uuids: Iterable[str]) -> str | None:
        """Return the pool that all of these GPUs are in; None where they are in several, or none is known."""
        pools = {self.pool_of(self.gpus[uuid])[1] for uuid in uuids if uuid in self.gpus}
        return next(iter(pools)) if len(pools) == 1 else None

    def find_workloads(self, name: str, cluster: str | None) -> tuple[Workload, ...]:
        """Return the workloads that `name` (kind/namespace/name or namespace/name) may mean."""
        found = self.workloads_by_name.get(name, ())
        return tuple(each for each in found if cluster is None or each.cluster == cluster)

    def find_workload(self, cluster: str, ref: ObjectRef) -> Workload | None:
        """Return the workload of that reference, or None."""
        found = (each for each in self.find_workloads(str(ref), cluster) if each.ref == ref)
        return next(found, None)

    def find_nodes(self, name: str, cluster: str | None) -> tuple[Node, ...]:
        """Return the nodes of that name, in one cluster where it is given."""
        if cluster is not None:
            node = self.nodes.get((cluster, name))
            return () if node is None else (node,)
        return tuple(node for (_, found), node in sorted(self.nodes.items(), key=_by_place) if found == name)

    def find_quota(self, cluster: str, workspace: str, pool: str | None, model: str | None) -> Quota | None:
        """Return the quota of that workspace, pool and model, or None."""
        wanted = (cluster, workspace, pool, model)
        found = (each for each in self.state.quotas if (each.cluster, each.workspace, each.pool, each.model) == wanted)
        return next(found, None)

    def gpus_held(self, workload: Workload) -> float:
        """Return how many GPUs a workload holds, fractions counted as fractions."""
        pods = self.pods_by_workload.get((workload.cluster, workload.ref), ())
        by_pods = sum(pod.fraction * max(len(pod.gpu_uuids), len(pod.slice_uuids)) for pod in pods)
        return by_pods if pods else float(len(workload.gpu_uuids))


def index_of(state: FleetState, like: FleetIndex | None = None) -> FleetIndex:
    """Build the look-ups of a state.

    `like` is the index of a state that differs little: look-ups of parts that are the very same are taken from it, so
    that a fleet of many nodes is not gone through again for each move.
    """
    if like is None:
        like = _NOTHING
    before = like.state
    nodes = like.nodes if state.nodes is before.nodes else _nodes(state.nodes, like)
    is_alike = state.gpus is before.gpus and _have_same_pools(nodes, like.nodes)
    by_node, by_pool = (like.gpus_by_node, like.gpus_by_pool) if is_alike else _gpus(state.gpus, nodes)
    is_same = state.workloads is before.workloads
    by_name, by_gpu = (like.workloads_by_name, like.workloads_by_gpu) if is_same else _workloads(state.workloads)
    is_same = state.pods is before.pods
    pods, on_node = (like.pods_by_workload, like.pods_by_node) if is_same else _pods(state.pods)
    return FleetIndex(
        state=state,
        gpus=like.gpus if state.gpus is before.gpus else {gpu.uuid: gpu for gpu in state.gpus},
        nodes=nodes,
        gpus_by_node=by_node,
        gpus_by_pool=by_pool,
        workloads_by_name=by_name,
        workloads_by_gpu=by_gpu,
        pods_by_workload=pods,
        pods_by_node=on_node,
        objects={(each.cluster, each.api_version, each.ref): each for each in state.objects},
    )


def _nodes(nodes: tuple[Node, ...], like: FleetIndex) -> Mapping[Place, Node]:
    """Return nodes by place; where only some were read anew, in the same order, only these are looked at."""
    before = like.state.nodes
    if len(before) == len(nodes):
        changed = [(old, new) for old, new in zip(before, nodes, strict=True) if old is not new]
        if all((old.cluster, old.name) == (new.cluster, new.name) for old, new in changed):
            return {**like.nodes, **{(new.cluster, new.name): new for _, new in changed}}
    return {(node.cluster, node.name): node for node in nodes}


def _have_same_pools(nodes: Mapping[Place, Node], before: Mapping[Place, Node]) -> bool:
    if nodes is before:
        return True
    pairs = ((node, before.get(place)) for place, node in nodes.items())
    return len(nodes) == len(before) and all(
        node is old or (old is not None and node.pool == old.pool) for node, old in pairs
    )


def _gpus(
    gpus: tuple[Gpu, ...], nodes: Mapping[Place, Node]
) -> tuple[Mapping[Place, tuple[Gpu, ...]], Mapping[Pool, tuple[Gpu, ...]]]:
    by_node: dict[Place, list[Gpu]] = defaultdict(list)
    by_pool: dict[Pool, list[Gpu]] = defaultdict(list)
    for gpu in sorted(gpus, key=lambda each: each.uuid):
        node = nodes.get((gpu.cluster, gpu.node))
        by_node[gpu.cluster, gpu.node].append(gpu)
        by_pool[gpu.cluster, None if node is None else node.pool].append(gpu)
    return (
        {place: tuple(found) for place, found in by_node.items()},
        {pool: tuple(found) for pool, found in by_pool.items()},
    )


def _workloads(
    workloads: tuple[Workload, ...],
) -> tuple[Mapping[str, tuple[Workload, ...]], Mapping[str, tuple[Workload, ...]]]:
    by_name: dict[str, list[Workload]] = defaultdict(list)
    by_gpu: dict[str, list[Workload]] = defaultdict(list)
    for workload in sorted(workloads, key=lambda each: (each.cluster, each.ref)):
        for name in {str(workload.ref), f"{workload.ref.namespace}/{workload.ref.name}"}:
            by_name[name].append(workload)
        for uuid in workload.gpu_uuids:
            by_gpu[uuid].append(workload)
    return (
        {name: tuple(found) for name, found in by_name.items()},
        {uuid: tuple(found) for uuid, found in by_gpu.items()},
    )


def _pods(
    pods: tuple[Pod, ...],
) -> tuple[Mapping[tuple[str, ObjectRef], tuple[Pod, ...]], Mapping[Place, tuple[Pod, ...]]]:
    of_workload: dict[tuple[str, ObjectRef], list[Pod]] = defaultdict(list)
    on_node: dict[Place, list[Pod]] = defaultdict(list)
    for pod in pods:
        of_workload[pod.cluster, pod.workload].append(pod)
        on_node[pod.cluster, pod.node].append(pod)
    return (
        {key: tuple(found) for key, found in of_workload.items()},
        {place: tuple(found) for place, found in on_node.items()},
    )


def _by_place(item: tuple[Place, Node]) -> Place:
    return item[0]


_NOTHING = FleetIndex(FleetState(datetime.min.replace(tzinfo=UTC)), {}, {}, {}, {}, {}, {}, {}, {}, {})
