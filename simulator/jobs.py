"""One job, drawn: its kind's size and duration, where it may run, whose it is."""

import numpy as np

from fleet.state import ObjectRef
from simulator.behaviour import BatchSpec, NotebookSpec, TrainingSpec
from simulator.slices import known_board
from simulator.spec import FleetSpec, QuotaSpec, WorkspaceSpec
from simulator.work import HOUR_S, Kind
from simulator.world import NAMESPACE_SUFFIX, OBJECT_KIND, Workload, World

_USERS = 12
_NAMES = {Kind.TRAINING: "train", Kind.NOTEBOOK: "notebook", Kind.SERVING: "serve", Kind.BATCH: "batch"}


def arriving(spec: FleetSpec, kind: Kind) -> TrainingSpec | NotebookSpec | BatchSpec:
    """Return how work of a kind behaves that comes and goes (all kinds but services)."""
    if kind is Kind.NOTEBOOK:
        return spec.notebook
    return spec.batch if kind is Kind.BATCH else spec.training


def draw_job(world: World, index: int, kind: Kind, rng: np.random.Generator) -> tuple[Workload, int] | None:
    """Draw a workload of a workspace and its work in seconds; None where it could run nowhere."""
    workspace = world.spec.workspaces[index]
    quota = _choose_quota(workspace, rng)
    if quota is None:
        return None
    cluster = next(place for place, each in enumerate(world.spec.clusters) if each.name == quota.cluster)
    nodes, width, replicas = _size(world.spec, kind, rng)
    wants_slice = kind in {Kind.NOTEBOOK, Kind.SERVING} and rng.random() < workspace.slice_share and width == 1
    section = _choose_section(world, cluster, workspace, wants_slice=wants_slice, rng=rng)
    work_s = _work_s(world.spec, kind, rng)
    user, luck = int(rng.integers(_USERS)), float(rng.random())
    if section is None:
        return None
    profile, unit_gpus = _device(world, section, workspace, rng)
    nodes, width = _fitted(world, section, quota, nodes, width)
    namespace = f"{workspace.name}-{NAMESPACE_SUFFIX[kind]}"
    workload = Workload(
        ref=ObjectRef(OBJECT_KIND[kind], namespace, f"{_NAMES[kind]}-{len(world.workloads):05d}"),
        cluster=cluster,
        workspace=index,
        kind=kind,
        owner=f"{workspace.name}-user-{user:02d}",
        section=section,
        nodes=nodes,
        width=width,
        replicas=replicas,
        is_protected=luck < workspace.protected_share,
        created_s=world.now_s,
        unit_gpus=unit_gpus,
        profile=profile,
    )
    return workload, work_s


def _device(world: World, place: int, workspace: WorkspaceSpec, rng: np.random.Generator) -> tuple[str | None, float]:
    """Return the MIG profile that a job asks for and how much of a GPU it is; None and 1.0 for whole GPUs."""
    section = world.fabric.sections[place]
    if not section.is_mig:
        return None, section.unit_gpus
    board = known_board(section.model)
    wanted = [] if board is None else [found for name in workspace.slice_profiles if (found := board.profile(name))]
    if board is None or not wanted:
        return section.model.slice_profile, section.unit_gpus
    profile = wanted[int(rng.integers(len(wanted)))]
    return profile.name, profile.compute_slices / board.compute_slots


def _choose_quota(workspace: WorkspaceSpec, rng: np.random.Generator) -> QuotaSpec | None:
    weights = np.array([quota.gpus for quota in workspace.quotas])
    if weights.sum() <= 0:
        return None
    return workspace.quotas[int(rng.choice(len(weights), p=weights / weights.sum()))]


def _fitted(world: World, place: int, quota: QuotaSpec, nodes: int, width: int) -> tuple[int, int]:
    """Cut a size down to what the quota and the nodes can hold, so that no job waits for the impossible."""
    section = world.fabric.sections[place]
    if section.is_mig:
        return 1, 1
    most = quota.gpus + (world.spec.gpus if quota.borrowing_gpus is None else quota.borrowing_gpus)
    per_node = section.pool.gpus_per_node
    nodes = max(1, min(nodes, int(most // per_node), section.nodes_first))
    if nodes > 1:
        return nodes, per_node
    return 1, max(1, min(width or per_node, per_node, int(most)))


def _size(spec: FleetSpec, kind: Kind, rng: np.random.Generator) -> tuple[int, int, int]:
    """Return nodes, units on each (0 = all of them) and replicas."""
    if kind is Kind.TRAINING and rng.random() < spec.training.gang_share:
        return _draw(spec.training.gang_nodes, spec.training.gang_nodes_weights, rng), 0, 1
    if kind is Kind.TRAINING:
        return 1, _draw(spec.training.gpus, spec.training.gpus_weights, rng), 1
    if kind is Kind.BATCH:
        return 1, _draw(spec.batch.gpus, spec.batch.gpus_weights, rng), 1
    if kind is Kind.SERVING:
        replicas = _draw(spec.serving.replicas, spec.serving.replicas_weights, rng)
        return 1, _draw(spec.serving.gpus, spec.serving.gpus_weights, rng), replicas
    return 1, 1, 1


def _work_s(spec: FleetSpec, kind: Kind, rng: np.random.Generator) -> int:
    if kind is Kind.SERVING:
        return HOUR_S
    how = arriving(spec, kind)
    hours = how.median_hours * float(np.exp(how.spread * rng.standard_normal()))
    return int(HOUR_S * min(how.longest_hours, hours))


def _draw(values: tuple[int, ...], weights: tuple[float, ...], rng: np.random.Generator) -> int:
    chances = np.array(weights) / sum(weights)
    return int(values[int(rng.choice(len(values), p=chances))])


def _choose_section(
    world: World, cluster: int, workspace: WorkspaceSpec, *, wants_slice: bool, rng: np.random.Generator
) -> int | None:
    rank = float(rng.random())
    here = [
        place
        for place, part in enumerate(world.fabric.sections)
        if part.cluster == cluster and (not workspace.pools or part.pool.name in workspace.pools)
    ]
    fitting = [place for place in here if world.fabric.sections[place].is_mig == wants_slice] or here
    if not fitting:
        return None
    sizes = np.array([world.fabric.sections[place].nodes_first for place in fitting], dtype=np.float64)
    return fitting[min(int(np.searchsorted(np.cumsum(sizes) / sizes.sum(), rank, side="right")), len(fitting) - 1)]
