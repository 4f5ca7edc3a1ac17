"""The iron: nodes, GPUs and MIG devices as arrays that never change while the fleet runs.

A *unit* is what a pod can hold: a whole GPU, or one MIG device of a GPU that is cut. Indices run cluster by cluster,
pool by pool, node by node, so that a node's GPUs and units stand side by side.
"""

import uuid
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.models import COMPUTE_SLICES, ModelSpec
from simulator.randomness import Purpose, generator
from simulator.spec import FleetSpec, PoolSpec

Ints = NDArray[np.int64]
Reals = NDArray[np.float32]
Flags = NDArray[np.bool_]

_IDLE_TEMPERATURE_C = (22.0, 30.0)
_FIRST_BUS = 0x07
_BUS_STRIDE = 0x10
_SLOTS_PER_DOMAIN = 15


@dataclass(frozen=True, slots=True)
class Section:
    """Alike nodes that a job may choose among: those of one pool that are cut into MIG devices, or those that are not.

    `unit_gpus` is how much of a GPU one unit is at first, `nodes_first` how many of the nodes are there then. A GPU
    under MIG has as many places for units as it can have devices; which of them are there is told by the world's layout
    (`simulator.slices`).
    """

    cluster: int
    pool: PoolSpec
    model: ModelSpec
    is_mig: bool
    nodes: Ints
    units_per_node: int
    unit_gpus: float
    nodes_first: int


@dataclass(frozen=True, slots=True)
class Fabric:
    """All that can be counted before anything runs."""

    sections: tuple[Section, ...]
    node_name: tuple[str, ...]
    node_rack: tuple[str, ...]
    node_cluster: Ints
    node_section: Ints
    node_first_gpu: Ints
    node_first_unit: Ints
    node_scrape_s: Ints
    gpu_uuid: tuple[str, ...]
    gpu_bus: tuple[str, ...]
    gpu_node: Ints
    gpu_index: Ints
    gpu_section: Ints
    gpu_first_unit: Ints
    gpu_idle_power_w: Reals
    gpu_idle_temperature_c: Reals
    gpu_is_mig: Flags
    unit_gpu: Ints
    unit_node: Ints
    unit_uuid: tuple[str | None, ...]
    unit_bias: Reals

    def model_of(self, gpu: int) -> ModelSpec:
        """Return the model of a GPU."""
        return self.sections[int(self.gpu_section[gpu])].model

    def units_of_node(self, node: int) -> range:
        """Return the units of a node."""
        first = int(self.node_first_unit[node])
        return range(first, first + self.sections[int(self.node_section[node])].units_per_node)

    def units_of_gpu(self, gpu: int) -> range:
        """Return the units of a GPU."""
        first = int(self.gpu_first_unit[gpu])
        section = self.sections[int(self.gpu_section[gpu])]
        return range(first, first + (COMPUTE_SLICES if section.is_mig else 1))

    def gpus_of_node(self, node: int) -> range:
        """Return the GPUs of a node."""
        first = int(self.node_first_gpu[node])
        return range(first, first + self.sections[int(self.node_section[node])].pool.gpus_per_node)


def lay_out(spec: FleetSpec) -> Fabric:
    """Lay out the fleet that `spec` tells of; identities and small differences between boards come from its seed."""
    sections, pool_nodes = _sections(spec)
    node_section = np.concatenate([np.full(len(part.nodes), index) for index, part in enumerate(sections)])
    gpus_per_node = np.array([sections[index].pool.gpus_per_node for index in node_section])
    units_per_node = np.array([sections[index].units_per_node for index in node_section])
    node_count = len(node_section)
    gpu_node = np.repeat(np.arange(node_count), gpus_per_node)
    node_first_gpu = np.cumsum(gpus_per_node) - gpus_per_node
    gpu_section = node_section[gpu_node]
    units_per_gpu = (units_per_node // gpus_per_node)[gpu_node]
    gpu_index = np.arange(len(gpu_node)) - node_first_gpu[gpu_node]
    unit_gpu = np.repeat(np.arange(len(gpu_node)), units_per_gpu)
    gpu_is_mig = np.array([part.is_mig for part in sections])[gpu_section]
    rng = generator(spec.seed, Purpose.FABRIC)
    is_cut = _is_cut_at_first(sections, gpu_section[unit_gpu], units_per_gpu)
    slice_uuids = iter(_uuids("MIG", int(is_cut.sum()), rng))
    names, racks = _names(sections, pool_nodes)
    return Fabric(
        sections=sections,
        node_name=names,
        node_rack=racks,
        node_cluster=np.array([sections[index].cluster for index in node_section]),
        node_section=node_section,
        node_first_gpu=node_first_gpu,
        node_first_unit=np.cumsum(units_per_node) - units_per_node,
        node_scrape_s=rng.integers(0, max(1, spec.telemetry.scrape_spread_s), node_count),
        gpu_uuid=_uuids("GPU", len(gpu_node), rng),
        gpu_bus=tuple(_bus_id(index) for index in gpu_index.tolist()),
        gpu_node=gpu_node,
        gpu_index=gpu_index,
        gpu_section=gpu_section,
        gpu_first_unit=np.cumsum(units_per_gpu) - units_per_gpu,
        gpu_idle_power_w=_idle_power_w(sections, gpu_section, rng),
        gpu_idle_temperature_c=rng.uniform(*_IDLE_TEMPERATURE_C, len(gpu_node)).astype(np.float32),
        gpu_is_mig=gpu_is_mig,
        unit_gpu=unit_gpu,
        unit_node=gpu_node[unit_gpu],
        unit_uuid=tuple(next(slice_uuids) if has_one else None for has_one in is_cut.tolist()),
        unit_bias=(0.015 * rng.standard_normal(len(unit_gpu))).astype(np.float32),
    )


def _sections(spec: FleetSpec) -> tuple[tuple[Section, ...], dict[int, int]]:
    sections: list[Section] = []
    first = 0
    ordinal_of_node: dict[int, int] = {}
    for cluster_index, cluster in enumerate(spec.clusters):
        for pool in cluster.pools:
            model = spec.model(pool.model)
            cut = round(pool.mig_share * pool.nodes)
            further = pool.most_nodes - pool.nodes
            for is_mig, first_count in ((False, pool.nodes - cut), (True, cut)):
                if first_count == 0:
                    continue
                # nodes that may come later are like the whole ones, where there are such
                count = first_count + (further if is_mig == (cut == pool.nodes) else 0)
                each = COMPUTE_SLICES if is_mig else 1
                part = model.compute_slices_per_slice / COMPUTE_SLICES if is_mig else 1.0
                nodes = np.arange(first, first + count)
                offset = pool.nodes - cut if is_mig else 0
                ordinals = [*range(offset, offset + first_count), *range(pool.nodes, pool.most_nodes)][:count]
                ordinal_of_node.update({first + step: ordinal for step, ordinal in enumerate(ordinals)})
                sections.append(
                    Section(cluster_index, pool, model, is_mig, nodes, each * pool.gpus_per_node, part, first_count)
                )
                first += count
    return tuple(sections), ordinal_of_node


def _is_cut_at_first(sections: tuple[Section, ...], unit_section: Ints, units_per_gpu: Ints) -> Flags:
    """Return which units are MIG devices when the fleet begins: the first places of each GPU under MIG."""
    first = np.cumsum(units_per_gpu) - units_per_gpu
    place = np.arange(len(unit_section)) - np.repeat(first, units_per_gpu)
    devices = np.array([part.model.slices_per_gpu if part.is_mig else 0 for part in sections])[unit_section]
    return np.asarray(place < devices)


def _idle_power_w(sections: tuple[Section, ...], gpu_section: Ints, rng: np.random.Generator) -> Reals:
    low = np.array([part.model.idle_power_low_w for part in sections])[gpu_section]
    high = np.array([part.model.idle_power_high_w for part in sections])[gpu_section]
    return rng.uniform(low, high).astype(np.float32)


def _names(sections: tuple[Section, ...], ordinals: dict[int, int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names: list[str] = []
    racks: list[str] = []
    for part in sections:
        for node in part.nodes.tolist():
            ordinal = ordinals[node]
            names.append(f"{part.pool.name}-{ordinal:03d}")
            racks.append(f"{part.pool.name}-rack-{ordinal // part.pool.nodes_per_rack:02d}")
    return tuple(names), tuple(racks)


def _bus_id(index: int) -> str:
    domain, slot = divmod(index, _SLOTS_PER_DOMAIN)
    return f"{domain:08X}:{_FIRST_BUS + _BUS_STRIDE * slot:02X}:00.0"


def _uuids(prefix: str, count: int, rng: np.random.Generator) -> tuple[str, ...]:
    # Sorted, so that rows written GPU by GPU are sorted by UUID as well.
    return tuple(sorted(f"{prefix}-{uuid.UUID(bytes=rng.bytes(16), version=4)}" for _ in range(count)))
