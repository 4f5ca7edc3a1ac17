"""Look-ups over one fleet state, built once: who is where, who holds what, how large each pool is."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

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


def index_of(state: FleetState) -> FleetIndex:
    """Build the look-ups of a state."""
    nodes = {(node.cluster, node.name): node for node in state.nodes}
    by_node: dict[Place, list[Gpu]] = defaultdict(list)
    by_pool: dict[Pool, list[Gpu]] = defaultdict(list)
    for gpu in sorted(state.gpus, key=lambda each: each.uuid):
        node = nodes.get((gpu.cluster, gpu.node))
        by_node[gpu.cluster, gpu.node].append(gpu)
        by_pool[gpu.cluster, None if node is None else node.pool].append(gpu)
    by_name: dict[str, list[Workload]] = defaultdict(list)
    by_gpu: dict[str, list[Workload]] = defaultdict(list)
    for workload in sorted(state.workloads, key=lambda each: (each.cluster, each.ref)):
        for name in {str(workload.ref), f"{workload.ref.namespace}/{workload.ref.name}"}:
            by_name[name].append(workload)
        for uuid in workload.gpu_uuids:
            by_gpu[uuid].append(workload)
    pods: dict[tuple[str, ObjectRef], list[Pod]] = defaultdict(list)
    on_node: dict[Place, list[Pod]] = defaultdict(list)
    for pod in state.pods:
        pods[pod.cluster, pod.workload].append(pod)
        on_node[pod.cluster, pod.node].append(pod)
    return FleetIndex(
        state=state,
        gpus={gpu.uuid: gpu for gpu in state.gpus},
        nodes=nodes,
        gpus_by_node={place: tuple(found) for place, found in by_node.items()},
        gpus_by_pool={pool: tuple(found) for pool, found in by_pool.items()},
        workloads_by_name={name: tuple(found) for name, found in by_name.items()},
        workloads_by_gpu={uuid: tuple(found) for uuid, found in by_gpu.items()},
        pods_by_workload={key: tuple(found) for key, found in pods.items()},
        pods_by_node={place: tuple(found) for place, found in on_node.items()},
        objects={(each.cluster, each.api_version, each.ref): each for each in state.objects},
    )


def _by_place(item: tuple[Place, Node]) -> Place:
    return item[0]
