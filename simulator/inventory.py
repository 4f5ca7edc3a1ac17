"""What there is: clusters, nodes, pools, GPUs, MIG devices, workspaces and their quotas, as rows of our tables."""

import json
from collections.abc import Iterable

import polars as pl

from fleet.frames import conform
from fleet.tables import CLUSTER, GPU, NODE, NODE_POOL, QUOTA, SLICE, WORKSPACE, WORKSPACE_MEMBER
from simulator.observe import DRIVER, labels_of_node, slots_of_node
from simulator.pools import most_nodes, nodes_there
from simulator.world import NAMESPACE_SUFFIX, World

_CPU_MILLI_PER_GPU = 16_000
_HOST_MIB_PER_GPU = 131_072

Row = dict[str, object]


def inventory(world: World, until_s: int, samples: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return the inventory as it stands; a GPU was last seen at its last row in `samples`, null where it has none."""
    workspaces = [
        {"workspace": each.name, "owner": each.owner, "priority": each.priority, "weight": each.weight}
        for each in world.spec.workspaces
    ]
    return {
        "cluster": _frame(_clusters(world, until_s), CLUSTER.schema("wire")),
        "node": conform(_frame(_nodes(world, until_s), NODE.schema("wire")), NODE),
        "node_pool": _frame(_pools(world), NODE_POOL.schema("wire")),
        "gpu": conform(_gpus(world, until_s, samples), GPU),
        "slice": conform(_slices(world, until_s, samples), SLICE),
        "workspace": _frame(workspaces, WORKSPACE.schema("wire")),
        "workspace_member": conform(_frame(_members(world), WORKSPACE_MEMBER.schema("wire")), WORKSPACE_MEMBER),
        "quota": conform(_frame(_quotas(world, until_s), QUOTA.schema("wire")), QUOTA),
    }


def _frame(rows: Iterable[Row], schema: dict[str, pl.DataType]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=schema)


def _clusters(world: World, until_s: int) -> list[Row]:
    return [
        {
            "cluster": cluster.name,
            "provider": cluster.provider,
            "region": cluster.region or None,
            "last_seen_at": world.moment(until_s),
        }
        for cluster in world.spec.clusters
    ]


def _nodes(world: World, until_s: int) -> Iterable[Row]:
    fabric = world.fabric
    for node, name in enumerate(fabric.node_name):
        if not world.was_there(node, until_s - 1, until_s):
            continue
        section = fabric.sections[int(fabric.node_section[node])]
        cluster = world.spec.clusters[section.cluster]
        yield {
            "cluster": cluster.name,
            "node": name,
            "pool": section.pool.name,
            "rack": fabric.node_rack[node],
            "model": section.model.name,
            "gpus": section.pool.gpus_per_node,
            "cpu_milli": _CPU_MILLI_PER_GPU * section.pool.gpus_per_node,
            "memory_mib": _HOST_MIB_PER_GPU * section.pool.gpus_per_node,
            "capacity_type": section.pool.capacity_type,
            "region": cluster.region or None,
            "is_ready": bool(world.node_boot_count[node] == 0),
            "is_schedulable": bool(world.node_is_schedulable[node]),
            "labels": json.dumps(labels_of_node(world, node), sort_keys=True),
            "taints": json.dumps(_taints(world, node)),
            "last_seen_at": world.moment(until_s),
            "capacity": json.dumps(slots_of_node(world, node)),
            "allocatable": json.dumps(slots_of_node(world, node)),
        }


def _taints(world: World, node: int) -> list[dict[str, str]]:
    told = ((key, *each.rpartition(":")) for key, each in sorted(world.orders[node].taints.items()))
    return [{"key": key, "value": value, "effect": effect} for key, value, _, effect in told]


def _pools(world: World) -> list[Row]:
    return [
        {
            "cluster": cluster.name,
            "pool": pool.name,
            "model": pool.model,
            "capacity_type": pool.capacity_type,
            "nodes": nodes_there(world, (place, pool.name)),
            "nodes_min": min(pool.nodes, most_nodes(world, (place, pool.name))),
            "nodes_max": most_nodes(world, (place, pool.name)),
            "gpus_per_node": pool.gpus_per_node,
        }
        for place, cluster in enumerate(world.spec.clusters)
        for pool in cluster.pools
    ]


def _gpus(world: World, until_s: int, samples: pl.DataFrame) -> pl.DataFrame:
    fabric = world.fabric
    rows: list[Row] = []
    for gpu, gpu_uuid in enumerate(fabric.gpu_uuid):
        node, model = int(fabric.gpu_node[gpu]), fabric.model_of(gpu)
        if not world.was_there(node, 0, until_s):
            continue
        rows.append({
            "gpu_uuid": gpu_uuid,
            "uuid": gpu_uuid,
            "cluster": world.spec.clusters[int(fabric.node_cluster[node])].name,
            "node": fabric.node_name[node],
            "gpu_index": int(fabric.gpu_index[gpu]),
            "model": model.name,
            "architecture": model.architecture,
            "memory_mib": model.memory_mib,
            "power_limit_w": model.power_limit_w,
            "pci_bus_id": fabric.gpu_bus[gpu],
            "serial": f"16{gpu:011d}",
            "driver": DRIVER,
            "mig_enabled": bool(fabric.gpu_is_mig[gpu]),
        })  # fmt: skip
    schema = GPU.schema("wire")
    frame = pl.DataFrame(rows, schema={name: kind for name, kind in schema.items() if not name.endswith("_seen_at")})
    return frame.join(_seen(world, samples), on="gpu_uuid", how="left", maintain_order="left").select(list(schema))


def _slices(world: World, until_s: int, samples: pl.DataFrame) -> pl.DataFrame:
    fabric = world.fabric
    rows: list[Row] = []
    for life in world.slices.all():
        gpu = int(fabric.unit_gpu[life.unit])
        if not life.is_alive(until_s) or not world.was_there(int(fabric.gpu_node[gpu]), 0, until_s):
            continue
        rows.append({
            "slice_uuid": life.uuid,
            "uuid": life.uuid,
            "gpu_uuid": fabric.gpu_uuid[gpu],
            "gpu_instance": life.unit - int(fabric.gpu_first_unit[gpu]) + 1,
            "compute_instance": 0,
            "profile": life.profile,
            "compute_slices": life.compute_slices,
            "memory_mib": life.memory_mib,
        })  # fmt: skip
    schema = SLICE.schema("wire")
    frame = pl.DataFrame(rows, schema={name: kind for name, kind in schema.items() if not name.endswith("_seen_at")})
    return frame.join(_seen(world, samples), on="gpu_uuid", how="left", maintain_order="left").select(list(schema))


def _seen(world: World, samples: pl.DataFrame) -> pl.DataFrame:
    first = pl.lit(world.spec.starts_at)
    return samples.group_by("gpu_uuid").agg(first_seen_at=first, last_seen_at=pl.col("ts").max())


def _members(world: World) -> list[Row]:
    return [
        {
            "cluster": quota.cluster,
            "namespace": f"{workspace.name}-{suffix}",
            "workspace": workspace.name,
            "starts_at": world.spec.starts_at,
        }
        for workspace in world.spec.workspaces
        for quota in workspace.quotas
        for suffix in dict.fromkeys(NAMESPACE_SUFFIX.values())
    ]


def _quotas(world: World, until_s: int) -> list[Row]:
    return [
        {
            "cluster": world.spec.clusters[quota.cluster].name,
            "workspace": world.spec.workspaces[quota.workspace].name,
            "gpus": quota.gpus,
            "borrowing_gpus": quota.borrowing_gpus,
            "starts_at": world.moment(quota.starts_s),
            "ends_at": None if quota.ends_s is None or quota.ends_s >= until_s else world.moment(quota.ends_s),
        }
        for quota in world.quotas
        if quota.starts_s < until_s
    ]
