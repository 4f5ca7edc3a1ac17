"""What a job does with its GPUs: phases, one after another, drawn from the shapes of real activity.

This is the truth of the simulator. Telemetry is made from phases, never the other way round.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from simulator.distributions import MEMORY, POWER, SM_ACTIVITY, TENSOR_ACTIVITY, UTILIZATION, near_rank, quantile
from simulator.spec import FleetSpec

HOUR_S = 3600
_DAY_S = 86_400
_WEEK_DAYS = 7
_WORK_DAYS = 5
_MORNING_S, _EVENING_S = 8 * HOUR_S, 19 * HOUR_S
_FOREVER_S = 10 * 365 * _DAY_S
# Power at 80 W of 400 W is where Acme's idle boards end; above it a board works.
_IDLE_POWER_RATIO = 0.17
_LOADING_LEVEL = 0.06


class Kind(IntEnum):
    """The four kinds of work."""

    TRAINING = 0
    NOTEBOOK = 1
    SERVING = 2
    BATCH = 3


class State(IntEnum):
    """What a unit is doing."""

    FREE = 0
    LOADING = 1
    WORKING = 2
    IDLE_HELD = 3
    IDLE = 4
    STALLED = 5


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of alike activity.

    `level` is the mean utilisation while something runs, `noise` the spread of its samples, `zero_share` the share
    of samples in which nothing runs; `intensity` is power above idle at full utilisation (ratio of the span up to
    the limit); the activities are ratios of the utilisation; `memory` is a ratio of the unit's memory.
    """

    state: State
    seconds: int
    level: float = 0.0
    noise: float = 0.0
    zero_share: float = 0.0
    intensity: float = 0.0
    sm_activity: float = 0.0
    tensor_activity: float = 0.0
    dram_activity: float = 0.0
    memory: float = 0.0


FREE = Phase(State.FREE, 0)


def phases(spec: FleetSpec, kind: Kind, work_s: int, begins_s: int, rng: np.random.Generator) -> Iterator[Phase]:
    """Yield what a job of `kind` does from `begins_s` (seconds after the start of the fleet) on, until it ends.

    `work_s` is how long it wants to work (training, batch) or to stay (notebook); services never end by themselves.
    """
    if kind is Kind.TRAINING:
        return _training(spec, work_s, rng)
    if kind is Kind.NOTEBOOK:
        return _notebook(spec, work_s, begins_s, rng)
    if kind is Kind.SERVING:
        return _serving(spec, begins_s, rng)
    return _batch(spec, work_s, rng)


def is_office_hour(spec: FleetSpec, at_s: float) -> bool:
    """Tell whether people are at work `at_s` seconds after the start of the fleet."""
    since_midnight = spec.starts_at.hour * HOUR_S + spec.starts_at.minute * 60 + at_s
    weekday = (spec.starts_at.weekday() + int(since_midnight // _DAY_S)) % _WEEK_DAYS
    return weekday < _WORK_DAYS and _MORNING_S <= since_midnight % _DAY_S < _EVENING_S


def _training(spec: FleetSpec, work_s: int, rng: np.random.Generator) -> Iterator[Phase]:
    how = spec.training
    work = _activity(rng, spec.telemetry.utilization_noise, spec.telemetry.dip_share)
    yield _loading(how.loading_minutes, work, rng)
    left = work_s
    while left > 0:
        stretch = min(left, _seconds(how.stretch_hours * HOUR_S, rng))
        yield replace(work, seconds=stretch)
        left -= stretch
        if left > 0 and rng.random() < how.stall_share:
            yield _stalled(work, _seconds(how.stall_hours * HOUR_S, rng))
    if rng.random() < how.hold_share:
        yield _idle_held(work, _seconds(how.hold_hours * HOUR_S, rng))


def _batch(spec: FleetSpec, work_s: int, rng: np.random.Generator) -> Iterator[Phase]:
    work = _activity(rng, spec.telemetry.utilization_noise, spec.telemetry.dip_share)
    yield _loading(spec.batch.loading_minutes, work, rng)
    yield replace(work, seconds=work_s)


def _notebook(spec: FleetSpec, stay_s: int, begins_s: int, rng: np.random.Generator) -> Iterator[Phase]:
    how = spec.notebook
    gone = 0
    has_memory = False
    work = _activity(rng, 0.1, 0.15)
    while gone < stay_s:
        office = is_office_hour(spec, begins_s + gone)
        stretch = 60 * how.pause_minutes * (1.0 if office else how.night_factor)
        pause = min(_seconds(stretch, rng), stay_s - gone)
        if has_memory and rng.random() < how.restart_share:
            has_memory = False
        yield _idle_held(work, pause) if has_memory else Phase(State.IDLE, pause)
        gone += pause
        if gone < stay_s:
            work = replace(_activity(rng, 0.1, 0.15), memory=0.6 * quantile(MEMORY, rng.random()))
            burst = min(_seconds(60 * how.burst_minutes, rng), stay_s - gone)
            yield replace(work, seconds=burst)
            has_memory = True
            gone += burst


def _serving(spec: FleetSpec, begins_s: int, rng: np.random.Generator) -> Iterator[Phase]:
    how = spec.serving
    model = replace(_activity(rng, 0.2, how.quiet_share), memory=float(rng.uniform(0.65, 0.92)))
    yield _loading(how.loading_minutes, model, rng)
    gone = int(how.loading_minutes * 60)
    while gone < _FOREVER_S:
        level = float(rng.uniform(0.15, 0.85))
        busy = _seconds(60 * how.busy_minutes, rng)
        yield replace(model, seconds=busy, level=level)
        gone += busy
        factor = 1.0 if is_office_hour(spec, begins_s + gone) else how.night_factor
        beyond = _seconds(60 * (how.idle_minutes - how.idle_minutes_least) * factor, rng)
        idle = int(60 * how.idle_minutes_least) + beyond
        yield _idle_held(model, idle)
        gone += idle


def _activity(rng: np.random.Generator, noise: float, zero_share: float) -> Phase:
    rank = float(rng.random())
    level = max(0.03, quantile(UTILIZATION, rank))
    power = quantile(POWER, near_rank(rank, 0.2, rng))
    sm = quantile(SM_ACTIVITY, near_rank(rank, 0.2, rng))
    return Phase(
        State.WORKING,
        0,
        level=level,
        noise=noise,
        zero_share=zero_share,
        intensity=max(0.03, (power - _IDLE_POWER_RATIO) / (1.0 - _IDLE_POWER_RATIO)),
        sm_activity=sm,
        tensor_activity=min(quantile(TENSOR_ACTIVITY, near_rank(rank, 0.3, rng)), sm),
        dram_activity=0.5 * sm,
        memory=max(0.05, quantile(MEMORY, rng.random())),
    )


def _loading(minutes: float, work: Phase, rng: np.random.Generator) -> Phase:
    seconds = max(30, int(60 * minutes * rng.uniform(0.5, 1.5)))
    return Phase(
        State.LOADING, seconds, level=_LOADING_LEVEL, noise=0.05, zero_share=0.4, intensity=0.1, sm_activity=0.2,
        dram_activity=0.3, memory=work.memory,
    )  # fmt: skip


def _stalled(work: Phase, seconds: int) -> Phase:
    # A hung collective spins: the driver sees a running kernel, the SMs do next to nothing, power stays low.
    return Phase(
        State.STALLED, seconds, level=1.0, intensity=0.1, sm_activity=0.1, dram_activity=0.01, memory=work.memory
    )


def _idle_held(work: Phase, seconds: int) -> Phase:
    return Phase(State.IDLE_HELD, seconds, memory=work.memory)


def _seconds(mean_s: float, rng: np.random.Generator) -> int:
    return max(30, int(rng.exponential(mean_s)))
