"""Fleets that are ready to be drawn: the default, one that mostly serves, one that mostly holds notebooks."""

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType

from fleet.errors import BadInput
from simulator.spec import ClusterSpec, FleetSpec, PoolSpec, QuotaSpec, WorkspaceSpec

_A100, _H100, _L40S, _T4 = "NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3", "NVIDIA L40S", "Tesla T4"
_GPUS_PER_NODE = 8
_FEWEST_NODES = 6
_BORROWING = 0.25
# Cluster, pool, model, capacity type, share of the fleet's nodes, share of the pool's nodes under MIG.
_POOLS = (
    ("east", "a100-owned", _A100, "owned", 0.44, 0.0),
    ("east", "h100-reserved", _H100, "reserved", 0.19, 0.0),
    ("west", "a100-mig", _A100, "on_demand", 0.06, 1.0),
    ("west", "h100-spot", _H100, "spot", 0.15, 0.0),
    ("west", "l40s", _L40S, "on_demand", 0.10, 0.0),
    ("west", "t4", _T4, "on_demand", 0.06, 0.0),
)


def default_spec(gpus: int = 512, days: float = 14.0) -> FleetSpec:
    """Return a mixed fleet of two clusters and eight workspaces; `gpus` is a multiple of 8 and at least 48."""
    clusters = _clusters(gpus)
    return FleetSpec(clusters=clusters, workspaces=_workspaces(clusters), days=days)


def serving_heavy_spec(gpus: int = 512, days: float = 14.0) -> FleetSpec:
    """Return the default fleet with three quarters of each workspace's demand in services."""
    return _remixed(default_spec(gpus, days), training=0.1, notebook=0.05, serving=0.75, batch=0.1)


def notebook_heavy_spec(gpus: int = 512, days: float = 14.0) -> FleetSpec:
    """Return the default fleet with two thirds of each workspace's demand in notebooks."""
    return _remixed(default_spec(gpus, days), training=0.2, notebook=0.65, serving=0.05, batch=0.1)


PRESETS: MappingProxyType[str, Callable[..., FleetSpec]] = MappingProxyType(
    {"default": default_spec, "serving_heavy": serving_heavy_spec, "notebook_heavy": notebook_heavy_spec}
)


def _remixed(spec: FleetSpec, training: float, notebook: float, serving: float, batch: float) -> FleetSpec:
    workspaces = tuple(
        replace(workspace, training=training, notebook=notebook, serving=serving, batch=batch)
        for workspace in spec.workspaces
    )
    return replace(spec, workspaces=workspaces)


def _clusters(gpus: int) -> tuple[ClusterSpec, ...]:
    nodes, rest = divmod(gpus, _GPUS_PER_NODE)
    if rest or nodes < _FEWEST_NODES:
        message = f"gpus: {gpus} is not a multiple of {_GPUS_PER_NODE} of at least {_FEWEST_NODES * _GPUS_PER_NODE}"
        raise BadInput(message, field="gpus")
    counts = [max(1, int(share * nodes)) for *_, share, _ in _POOLS]
    counts[0] += nodes - sum(counts)
    pools = [
        (cluster, PoolSpec(name, model, count, _GPUS_PER_NODE, capacity, mig_share=mig))
        for (cluster, name, model, capacity, _, mig), count in zip(_POOLS, counts, strict=True)
    ]
    names = dict.fromkeys(cluster for cluster, _ in pools)
    return tuple(ClusterSpec(name, tuple(pool for cluster, pool in pools if cluster == name)) for name in names)


def _workspaces(clusters: tuple[ClusterSpec, ...]) -> tuple[WorkspaceSpec, ...]:
    gpus = {cluster.name: cluster.gpus for cluster in clusters}

    def quota(**shares: float) -> tuple[QuotaSpec, ...]:
        return tuple(
            QuotaSpec(cluster, held := max(1.0, float(int(share * gpus[cluster]))), float(int(_BORROWING * held)))
            for cluster, share in shares.items()
        )

    return (
        WorkspaceSpec("foundation", "foundation-leads", quota(east=0.38), priority=220, load=1.1),
        WorkspaceSpec("vision", "vision-leads", quota(east=0.16), "step", training=0.7, notebook=0.2, batch=0.1),
        WorkspaceSpec("speech", "speech-leads", quota(east=0.14, west=0.1), training=0.6, batch=0.3, notebook=0.1),
        WorkspaceSpec("search", "search-oncall", quota(east=0.1, west=0.25), training=0.0, serving=0.9, batch=0.1,
                      priority=250, protected_share=0.25),
        WorkspaceSpec("assistant", "assistant-oncall", quota(west=0.25, east=0.1), training=0.1, serving=0.8,
                      notebook=0.1, priority=240, protected_share=0.15),
        WorkspaceSpec("research", "research-leads", quota(east=0.08, west=0.2), "burst", training=0.3, notebook=0.5,
                      batch=0.2, slice_share=0.8),
        WorkspaceSpec("analytics", "analytics-leads", quota(west=0.12), "burst", training=0.0, batch=0.8,
                      notebook=0.2, load=1.1),
        WorkspaceSpec("students", "campus-help", quota(west=0.08, east=0.04), "step", training=0.2, notebook=0.7,
                      batch=0.1, load=1.3, slice_share=0.8, priority=50),
    )  # fmt: skip
