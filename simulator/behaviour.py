"""How the four kinds of work behave: sizes, durations, pauses. The defaults are assumptions.

They were set by hand, so that the default fleet is mostly allocated and about a third of its samples are at zero. They
are not fitted to a trace: real job durations are shorter in the middle and wider (one-GPU jobs of Microsoft Philly,
CC-BY-4.0: median 0.3 h, standard deviation of the logarithm 2.0). A quarter of a service's hours are idle spells of
half an hour and more with memory held, notebooks are mostly idle with short bursts.
"""

from dataclasses import dataclass

from fleet.bounds import require_between, require_positive
from fleet.errors import BadInput


def _require_choices(field: str, values: tuple[int, ...], weights: tuple[float, ...]) -> None:
    if not values or len(values) != len(weights):
        message = f"{field}: needs as many weights as values, got {len(values)} values and {len(weights)} weights"
        raise BadInput(message, field=field)
    for value in values:
        require_between(field, value, 1, 100_000)
    for weight in weights:
        require_between(f"{field} weights", weight, 0.0, 1e6)
    require_positive(f"{field} weights", sum(weights))


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """Training: gangs that hold all their GPUs at once. `gang_share` of the jobs take whole nodes.

    `stall_share`: chance that a stretch of work is followed by a hang (kernels spin, nothing is done).
    `hold_share`: chance that a finished job keeps its GPUs and their memory for `hold_hours` in the mean.
    """

    median_hours: float = 5.0
    spread: float = 1.1
    longest_hours: float = 96.0
    gpus: tuple[int, ...] = (1, 2, 4, 8)
    gpus_weights: tuple[float, ...] = (0.35, 0.2, 0.2, 0.25)
    gang_share: float = 0.2
    gang_nodes: tuple[int, ...] = (1, 2, 4)
    gang_nodes_weights: tuple[float, ...] = (0.5, 0.35, 0.15)
    loading_minutes: float = 8.0
    stretch_hours: float = 8.0
    stall_share: float = 0.015
    stall_hours: float = 3.0
    hold_share: float = 0.09
    hold_hours: float = 6.0

    def __post_init__(self) -> None:
        """Refuse durations that do not pass and shares that are none."""
        names = ("median_hours", "spread", "longest_hours", "loading_minutes", "stretch_hours", "stall_hours")
        for name in (*names, "hold_hours"):
            require_positive(name, getattr(self, name))
        for name in ("gang_share", "stall_share", "hold_share"):
            require_between(name, getattr(self, name), 0.0, 1.0)
        _require_choices("gpus", self.gpus, self.gpus_weights)
        _require_choices("gang_nodes", self.gang_nodes, self.gang_nodes_weights)


@dataclass(frozen=True, slots=True)
class NotebookSpec:
    """Notebooks: one GPU or MIG device, held for long, used in bursts.

    `night_factor` stretches the pauses that begin outside working hours; `restart_share` of the pauses begin with a
    kernel restart, which frees the memory.
    """

    median_hours: float = 20.0
    spread: float = 0.8
    longest_hours: float = 168.0
    burst_minutes: float = 9.0
    pause_minutes: float = 45.0
    night_factor: float = 4.0
    restart_share: float = 0.1

    def __post_init__(self) -> None:
        """Refuse durations that do not pass and shares that are none."""
        for name in ("median_hours", "spread", "longest_hours", "burst_minutes", "pause_minutes", "night_factor"):
            require_positive(name, getattr(self, name))
        require_between("restart_share", self.restart_share, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class ServingSpec:
    """Services: replicas that stay, with model weights in memory, busy in bursts of requests.

    A replica alternates busy spells and idle spells (`idle_minutes_least` and more); by night (`night_factor`)
    its idle spells are longer. `quiet_share` is the share of samples without a request inside a busy spell.
    """

    replicas: tuple[int, ...] = (1, 2, 4, 6)
    replicas_weights: tuple[float, ...] = (0.3, 0.3, 0.25, 0.15)
    gpus: tuple[int, ...] = (1, 2, 4)
    gpus_weights: tuple[float, ...] = (0.7, 0.15, 0.15)
    loading_minutes: float = 6.0
    busy_minutes: float = 210.0
    idle_minutes: float = 60.0
    idle_minutes_least: float = 32.0
    night_factor: float = 1.6
    quiet_share: float = 0.12

    def __post_init__(self) -> None:
        """Refuse durations that do not pass and shares that are none."""
        for name in ("loading_minutes", "busy_minutes", "idle_minutes", "night_factor"):
            require_positive(name, getattr(self, name))
        require_between("idle_minutes_least", self.idle_minutes_least, 0.0, self.idle_minutes)
        require_between("quiet_share", self.quiet_share, 0.0, 1.0)
        _require_choices("replicas", self.replicas, self.replicas_weights)
        _require_choices("gpus", self.gpus, self.gpus_weights)


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """Batch: small jobs that come, work and go."""

    median_hours: float = 0.7
    spread: float = 1.0
    longest_hours: float = 24.0
    gpus: tuple[int, ...] = (1, 2)
    gpus_weights: tuple[float, ...] = (0.85, 0.15)
    loading_minutes: float = 2.0

    def __post_init__(self) -> None:
        """Refuse durations that do not pass."""
        for name in ("median_hours", "spread", "longest_hours", "loading_minutes"):
            require_positive(name, getattr(self, name))
        _require_choices("gpus", self.gpus, self.gpus_weights)
