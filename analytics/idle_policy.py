"""When something counts as idle, stalled or too large: the settings of the topic `idle`, and what is known beside."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType

from analytics.activity import ACTIVE_ABOVE
from analytics.workload_kinds import NOTEBOOK, SERVING, facts_of
from fleet.bounds import require_between, require_positive

_NO_WATTS: Mapping[str, float] = MappingProxyType({})
_NO_RATES: Mapping[str, Decimal] = MappingProxyType({})
_POSITIVE = (
    "window_s", "notebook_window_s", "serving_window_s", "near_s", "look_back_s", "gap_s", "power_ratio",
    "samples_min", "wakes_max", "stalled_power_share", "memory_margin", "activity_margin",
)  # fmt: skip
_RATIOS = (
    "active_above", "coverage_min", "stalled_utilization", "stalled_sm_activity", "stalled_dram_activity",
    "stalled_power_share", "blip_activity",
)  # fmt: skip
_NOT_NEGATIVE = ("active_samples_max", "grace_s", "memory_held_mib", "power_margin_w", "blip_power_w", "skew_s")


@dataclass(frozen=True, slots=True)
class IdlePolicy:
    """When a GPU counts as idle.

    `window_s` is the window of batch work and of all that nobody knows the kind of; notebooks and services have their
    own. `interval_s` None infers the sampling interval from the node's own samples. `near_s` is how far back single
    samples are read to find since when; beyond it the hourly roll-up answers, up to `look_back_s`.

    `power_ratio` and `power_margin_w` make the line above a model's idle power from which on a GPU is busy whatever
    its utilization says; `blip_power_w` is how far the mean power between two samples, by the energy counter, may rise
    above the board's own quiet power before it tells of work that no sample met, and `blip_activity` the part of an
    interval that a lone active sample may have been active by a profiling counter. `wakes_max`: a GPU that came back
    from that many pauses in a day is left alone during a pause up to twice its usual length. A process without work
    holds less than `memory_held_mib`. Within `skew_s` of a change of hands nobody is charged with an idle spell.

    `stalled_*`: a device whose kernels run all the time (`stalled_utilization`) while SMs and memory stay below these
    ratios, and power below that share of the way from idle to the board's limit, spins. `memory_margin` and
    `activity_margin` are what a smaller device must have to spare.
    """

    window_s: float = 3600.0
    notebook_window_s: float = 7200.0
    serving_window_s: float = 1800.0
    interval_s: float | None = None
    active_above: float = ACTIVE_ABOVE
    active_samples_max: int = 1
    samples_min: int = 10
    coverage_min: float = 0.95
    grace_s: float = 300.0
    memory_held_mib: int = 500
    near_s: float = 3 * 3600.0
    look_back_s: float = 7 * 86400.0
    gap_s: float = 900.0
    skew_s: float = 60.0
    power_ratio: float = 1.5
    power_margin_w: float = 30.0
    blip_power_w: float = 6.0
    blip_activity: float = 0.25
    wakes_max: int = 3
    stalled_utilization: float = 0.95
    stalled_sm_activity: float = 0.2
    stalled_dram_activity: float = 0.05
    stalled_power_share: float = 0.25
    memory_margin: float = 1.15
    activity_margin: float = 1.25

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        for name in _POSITIVE:
            require_positive(name, getattr(self, name))
        for name in _RATIOS:
            require_between(name, getattr(self, name), 0.0, 1.0)
        for name in _NOT_NEGATIVE:
            require_between(name, getattr(self, name), 0, float("inf"))
        require_between("near_s", self.near_s, self.window_s, self.look_back_s)
        for name in ("memory_margin", "activity_margin"):
            require_between(name, getattr(self, name), 1.0, 10.0)
        if self.interval_s is not None:
            require_positive("interval_s", self.interval_s)

    def window_of(self, kind: str | None) -> float:
        """Return the window of a workload's kind in seconds; no kind is the window of batch work."""
        use = facts_of(kind).use
        return {NOTEBOOK: self.notebook_window_s, SERVING: self.serving_window_s}.get(use, self.window_s)

    @property
    def longest_window_s(self) -> float:
        """Return the longest of the windows in seconds."""
        return max(self.window_s, self.notebook_window_s, self.serving_window_s)


@dataclass(frozen=True, slots=True)
class Prior:
    """What is known beside the signals: price by GPU uuid (USD an hour), and idle power by GPU model (watts).

    A model that is not in `idle_power_w` has the idle power of `fleet.models`.
    """

    idle_power_w: Mapping[str, float] = field(default_factory=lambda: _NO_WATTS)
    usd_per_gpu_hour: Mapping[str, Decimal] = field(default_factory=lambda: _NO_RATES)
