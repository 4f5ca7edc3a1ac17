"""The fleet as a value: everything that the simulator is told before it starts."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from fleet.bounds import require_between, require_positive
from fleet.clock import as_utc
from fleet.errors import BadInput
from simulator.behaviour import BatchSpec, NotebookSpec, ServingSpec, TrainingSpec
from simulator.care_spec import CareSpec
from simulator.faults_spec import FaultSpec
from simulator.models import KNOWN_MODELS, ModelSpec

CAPACITY_TYPES = ("on_demand", "reserved", "spot", "owned")
DEMAND_SHAPES = ("persistent", "step", "burst")


def require_one_of(field_name: str, value: str, accepted: tuple[str, ...]) -> None:
    """Raise `BadInput` naming the field and what it accepts unless `value` is among `accepted`."""
    if value not in accepted:
        message = f"{field_name}: {value!r} is not one of {', '.join(accepted)}"
        raise BadInput(message, field=field_name)


def require_unique(field_name: str, names: list[str]) -> None:
    """Raise `BadInput` naming the field unless there are names and no name stands twice."""
    if not names:
        message = f"{field_name}: at least one is needed"
        raise BadInput(message, field=field_name)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        message = f"{field_name}: {twice[0]!r} stands twice"
        raise BadInput(message, field=field_name)


def _require_name(value: str) -> None:
    if not value.strip():
        message = "name: is empty"
        raise BadInput(message, field="name")


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """One node pool: alike nodes. `mig_share` of its nodes are cut into MIG devices.

    It begins with `nodes`; `nodes_max` is what there is iron for, where its limit is raised (None: no more).
    """

    name: str
    model: str
    nodes: int
    gpus_per_node: int = 8
    capacity_type: str = "on_demand"
    nodes_per_rack: int = 4
    mig_share: float = 0.0
    nodes_max: int | None = None

    def __post_init__(self) -> None:
        """Refuse a pool that could not stand in a hall."""
        _require_name(self.name)
        require_between("nodes", self.nodes, 1, 100_000)
        require_between("gpus_per_node", self.gpus_per_node, 1, 64)
        require_between("nodes_per_rack", self.nodes_per_rack, 1, 1_000)
        require_between("mig_share", self.mig_share, 0.0, 1.0)
        require_one_of("capacity_type", self.capacity_type, CAPACITY_TYPES)
        if self.nodes_max is not None:
            require_between("nodes_max", self.nodes_max, self.nodes, 100_000)

    @property
    def gpus(self) -> int:
        """Return the GPUs that the whole pool begins with."""
        return self.nodes * self.gpus_per_node

    @property
    def most_nodes(self) -> int:
        """Return the nodes that it can ever have."""
        return self.nodes if self.nodes_max is None else self.nodes_max


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """One cluster and its pools."""

    name: str
    pools: tuple[PoolSpec, ...]
    provider: str = "simulator"
    region: str = ""

    def __post_init__(self) -> None:
        """Refuse a cluster without pools, or with two of one name."""
        _require_name(self.name)
        require_unique("pools", [pool.name for pool in self.pools])

    @property
    def gpus(self) -> int:
        """Return the GPUs that the whole cluster begins with."""
        return sum(pool.gpus for pool in self.pools)

    @property
    def most_gpus(self) -> int:
        """Return the GPUs that the whole cluster can ever have."""
        return sum(pool.most_nodes * pool.gpus_per_node for pool in self.pools)


@dataclass(frozen=True, slots=True)
class QuotaSpec:
    """What a workspace may hold in one cluster; `borrowing_gpus` None lets it borrow without limit."""

    cluster: str
    gpus: float
    borrowing_gpus: float | None = 0.0

    def __post_init__(self) -> None:
        """Refuse negative quotas."""
        require_between("gpus", self.gpus, 0.0, 1e6)
        if self.borrowing_gpus is not None:
            require_between("borrowing_gpus", self.borrowing_gpus, 0.0, 1e6)


@dataclass(frozen=True, slots=True)
class WorkspaceSpec:
    """One workspace: what it may hold, how much it wants, and of which kinds of work.

    `load` is wanted GPUs over quota, in the mean. `training` .. `batch` are weights of the wanted GPUs.
    `slice_share`: part of its one-GPU notebooks and services that ask for a MIG device where there are any;
    `slice_profiles`: the profiles they ask for, one as often as another; empty = the one the pool was cut into.
    `protected_share`: part of its workloads whose owners asked that they be left alone.
    `pools`: the pools its work may run in; empty = all. `max_unavailable`: the disruption budget of each of its
    services, replicas that may be missing at once when one is to be evicted; None = any number.
    """

    name: str
    owner: str
    quotas: tuple[QuotaSpec, ...]
    demand: str = "persistent"
    load: float = 1.05
    training: float = 1.0
    notebook: float = 0.0
    serving: float = 0.0
    batch: float = 0.0
    slice_share: float = 0.5
    slice_profiles: tuple[str, ...] = ()
    protected_share: float = 0.05
    priority: int = 100
    weight: float = 1.0
    pools: tuple[str, ...] = ()
    max_unavailable: int | None = None

    def __post_init__(self) -> None:
        """Refuse a workspace that wants nothing, or less."""
        _require_name(self.name)
        require_unique("quotas", [quota.cluster for quota in self.quotas])
        require_one_of("demand", self.demand, DEMAND_SHAPES)
        require_between("load", self.load, 0.0, 10.0)
        for kind in ("training", "notebook", "serving", "batch"):
            require_between(kind, getattr(self, kind), 0.0, 1e6)
        require_positive("training + notebook + serving + batch", sum(self.shares()))
        require_between("slice_share", self.slice_share, 0.0, 1.0)
        require_between("protected_share", self.protected_share, 0.0, 1.0)
        require_between("priority", self.priority, 1, 300)
        if self.max_unavailable is not None:
            require_between("max_unavailable", self.max_unavailable, 0, 100_000)
        require_positive("weight", self.weight)

    def shares(self) -> tuple[float, float, float, float]:
        """Return the weights in the order training, notebook, serving, batch."""
        return self.training, self.notebook, self.serving, self.batch


@dataclass(frozen=True, slots=True)
class TelemetrySpec:
    """How well the fleet is seen.

    `lag_s`: a sample shows the moment that long before its time stamp. `scrape_spread_s`: nodes are scraped at
    moments spread over that many seconds. `node_loss`, `gpu_loss`: share of samples that go missing together for
    a node, or alone. `field_loss`: share of samples whose activity columns are missing. `blip_share`: share of
    idle samples in which something small ran (a health probe). `utilization_noise`: standard deviation of a
    working GPU's samples around its level.
    """

    lag_s: int = 10
    scrape_spread_s: int = 20
    node_loss: float = 0.001
    gpu_loss: float = 0.0005
    field_loss: float = 0.0005
    blip_share: float = 0.0008
    dip_share: float = 0.02
    utilization_noise: float = 0.03
    power_noise: float = 0.02

    def __post_init__(self) -> None:
        """Refuse shares that are none and lags that run ahead."""
        require_between("lag_s", self.lag_s, 0, 3600)
        require_between("scrape_spread_s", self.scrape_spread_s, 0, 3600)
        for name in ("node_loss", "gpu_loss", "field_loss", "blip_share", "dip_share"):
            require_between(name, getattr(self, name), 0.0, 1.0)
        require_between("utilization_noise", self.utilization_noise, 0.0, 0.5)
        require_between("power_noise", self.power_noise, 0.0, 0.5)


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """The whole fleet. Same spec and same moves give the same rows, however they are read.

    `days` is how long its owner means to run it; the simulator itself goes on as far as it is asked.
    """

    clusters: tuple[ClusterSpec, ...]
    workspaces: tuple[WorkspaceSpec, ...]
    seed: int = 1
    starts_at: datetime = datetime(2026, 3, 2, tzinfo=UTC)
    days: float = 14.0
    interval_s: int = 60
    demand_interval_s: int = 300
    schedule_interval_s: int = 60
    patience_hours: float = 48.0
    models: tuple[ModelSpec, ...] = KNOWN_MODELS
    training: TrainingSpec = field(default_factory=TrainingSpec)
    notebook: NotebookSpec = field(default_factory=NotebookSpec)
    serving: ServingSpec = field(default_factory=ServingSpec)
    batch: BatchSpec = field(default_factory=BatchSpec)
    faults: FaultSpec = field(default_factory=FaultSpec)
    telemetry: TelemetrySpec = field(default_factory=TelemetrySpec)
    care: CareSpec = field(default_factory=CareSpec)

    def __post_init__(self) -> None:
        """Refuse names that point nowhere and times that do not pass."""
        as_utc(self.starts_at, "starts_at")
        require_between("seed", self.seed, 0, 2**32 - 1)
        require_positive("days", self.days)
        for name in ("interval_s", "demand_interval_s", "schedule_interval_s"):
            require_between(name, getattr(self, name), 1, 86_400)
        require_positive("patience_hours", self.patience_hours)
        require_between("telemetry.scrape_spread_s", self.telemetry.scrape_spread_s, 0, self.interval_s)
        require_unique("clusters", [cluster.name for cluster in self.clusters])
        require_unique("workspaces", [workspace.name for workspace in self.workspaces])
        require_unique("models", [model.name for model in self.models])
        self._require_known_names()

    def _require_known_names(self) -> None:
        models = tuple(model.name for model in self.models)
        clusters = tuple(cluster.name for cluster in self.clusters)
        pools = tuple(pool.name for cluster in self.clusters for pool in cluster.pools)
        for cluster in self.clusters:
            for pool in cluster.pools:
                require_one_of(f"clusters.{cluster.name}.pools.{pool.name}.model", pool.model, models)
                if pool.mig_share > 0 and self.model(pool.model).slices_per_gpu == 0:
                    message = f"clusters.{cluster.name}.pools.{pool.name}.mig_share: {pool.model} has no MIG"
                    raise BadInput(message, field="mig_share")
        for injection in self.faults.injections:
            require_between("faults.injections.gpu", injection.gpu, 0, self.gpus - 1)
        for workspace in self.workspaces:
            for quota in workspace.quotas:
                require_one_of(f"workspaces.{workspace.name}.quotas.cluster", quota.cluster, clusters)
            for name in workspace.pools:
                require_one_of(f"workspaces.{workspace.name}.pools", name, pools)

    def model(self, name: str) -> ModelSpec:
        """Return the model of that name (checked when the spec was made)."""
        return next(model for model in self.models if model.name == name)

    @property
    def gpus(self) -> int:
        """Return the GPUs of the whole fleet."""
        return sum(cluster.gpus for cluster in self.clusters)

    @property
    def ends_at(self) -> datetime:
        """Return the moment `days` after the start."""
        return self.starts_at + timedelta(days=self.days)
