"""How long will a request wait? Quantiles, from the queue, what runs, and what jobs were like before.

The queue is replayed forward many times: what runs ends after a time drawn from jobs that had run at least as long,
what waits and the request itself run as jobs of their workspace did, and the jobs that will come are those of a
stretch of the past, drawn anew each time. What the replays say counts as much as what requests of the workspace waited
lately: the replays know the moment, the record knows what no replay does. Which quantile of both is told goes by how
quotes from the record alone would have done lately: where one wait in five was longer than nine in ten of the waits
before it, the nine-in-ten quote is read further out (conformal calibration of the levels).
"""

from dataclasses import dataclass, field

import numpy as np

from analytics.backtest import Floats, Integers
from analytics.queue_replay import Held, Jobs, Rules, replay

LEVELS = np.array([0.1, 0.25, 0.5, 0.75, 0.9])
_SIMILAR_MIN = 20
_CALIBRATION_BACK = 40
_CALIBRATION_MIN = 20
_LEVEL_MIN = 0.01
_DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Ask:
    """A request: GPUs, workspace (number) and priority (higher goes first)."""

    gpus: float
    workspace: int
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Running:
    """What runs now, as columns: GPUs, workspace and for how many seconds it has run."""

    gpus: Floats
    workspace: Integers
    age_s: Floats


@dataclass(frozen=True, slots=True)
class WaitPolicy:
    """How many replays, how far each looks, and how far back arrivals are drawn, `coming_s` of them at a time.

    A wait beyond `look_ahead_s` counts as just that.
    """

    draws: int = 40
    look_ahead_s: float = 30 * _DAY_S
    arrivals_from_s: float = 60 * _DAY_S
    coming_s: float = 7 * _DAY_S


@dataclass(frozen=True, slots=True)
class QueueNow:
    """A queue at the moment `now_s`: its rules, what runs, what waits, and the jobs that ended before.

    `recent_waits_s` are those of the last starts of the workspace that asks.
    """

    now_s: float
    rules: Rules
    running: Running
    waiting: Jobs
    history: Jobs
    recent_waits_s: Floats = field(default_factory=lambda: np.empty(0))


def quote_wait(
    queue: QueueNow, ask: Ask, seed: int, levels: Floats = LEVELS, policy: WaitPolicy = WaitPolicy()
) -> Floats:
    """Return quantiles of the wait in seconds. A request that fits at once waits for nothing in every replay.

    Infinite where the request can never start: it asks for more GPUs than there are, or than its quota without lending.
    """
    reach = queue.rules.gpus if queue.rules.is_lending else min(queue.rules.gpus, queue.rules.quotas[ask.workspace])
    if ask.gpus > reach:
        return np.full(levels.size, np.inf)
    generator = np.random.default_rng(seed)
    waits = np.array([_draw_wait(queue, ask, generator, policy) for _ in range(policy.draws)])
    if waits.max() == 0:
        return np.zeros(levels.size)
    recent = queue.recent_waits_s
    drawn = generator.choice(recent, policy.draws) if recent.size >= _SIMILAR_MIN else np.empty(0)
    found = np.quantile(np.concatenate([waits, drawn]), calibrated_levels(recent, levels))
    return np.asarray(found, dtype=np.float64)


def calibrated_levels(recent_s: Floats, levels: Floats) -> Floats:
    """Return the levels to read off so that `levels` of the waits `recent_s` (in order) would have been held.

    Each wait is placed among those before it; the places it took are the levels. They only move outwards, the median
    stays, and where too few waits are known so does everything.
    """
    if recent_s.size < _CALIBRATION_BACK + _CALIBRATION_MIN:
        return levels
    before = np.lib.stride_tricks.sliding_window_view(recent_s, _CALIBRATION_BACK)[:-1]
    then = recent_s[_CALIBRATION_BACK:, None]
    places = ((before < then).mean(axis=1) + (before <= then).mean(axis=1)) / 2
    took = np.clip(np.quantile(places, levels), _LEVEL_MIN, 1 - _LEVEL_MIN)
    is_low, is_high = levels < 0.5, levels > 0.5  # noqa: PLR2004 - the median
    moved = np.where(is_low, np.minimum(took, levels), np.where(is_high, np.maximum(took, levels), levels))
    return np.asarray(moved, dtype=np.float64)


def _draw_wait(queue: QueueNow, ask: Ask, generator: np.random.Generator, policy: WaitPolicy) -> float:
    left = _draw_left(queue, generator)
    held = tuple(
        Held(queue.now_s + seconds, float(gpus), int(workspace))
        for seconds, gpus, workspace in zip(left, queue.running.gpus, queue.running.workspace, strict=True)
    )
    waiting = queue.waiting
    coming = _draw_arrivals(queue, generator, policy)
    runs = _draw_runs(queue, waiting.workspace, generator)
    jobs = Jobs(
        np.concatenate([waiting.submitted_s, [queue.now_s], coming.submitted_s]),
        np.concatenate([waiting.gpus, [ask.gpus], coming.gpus]),
        np.concatenate([runs, [_DAY_S], coming.run_s]),
        np.concatenate([waiting.workspace, [ask.workspace], coming.workspace]).astype(np.int64),
        np.concatenate([waiting.priority, [ask.priority], coming.priority]).astype(np.int64),
    )
    place = waiting.count
    started = replay(jobs, queue.rules, held, stop_at=place)[place]
    wait = started - queue.now_s if np.isfinite(started) else policy.look_ahead_s
    return float(np.clip(wait, 0.0, policy.look_ahead_s))


def _draw_left(queue: QueueNow, generator: np.random.Generator) -> Floats:
    """Return how long each running job goes on: as one that had run as long, of its workspace, else of any."""
    history, left = queue.history, np.empty(queue.running.age_s.size)
    for place, (workspace, age) in enumerate(zip(queue.running.workspace, queue.running.age_s, strict=True)):
        longer = history.run_s > age
        own = history.run_s[longer & (history.workspace == workspace)]
        pool = own if own.size >= _SIMILAR_MIN else history.run_s[longer]
        # none ever ran as long: it may end after as long again as it has run, half of the time
        left[place] = (
            generator.choice(pool) - age if pool.size >= 1 else age * (1.0 / generator.uniform(0.05, 1.0) - 1.0)
        )
    return np.maximum(left, 1.0)


def _draw_runs(queue: QueueNow, workspaces: Integers, generator: np.random.Generator) -> Floats:
    runs = np.empty(workspaces.size)
    for place, workspace in enumerate(workspaces):
        own = queue.history.run_s[queue.history.workspace == workspace]
        pool = own if own.size >= _SIMILAR_MIN else queue.history.run_s
        runs[place] = generator.choice(pool) if pool.size else _DAY_S
    return runs


def _draw_arrivals(queue: QueueNow, generator: np.random.Generator, policy: WaitPolicy) -> Jobs:
    """Return the jobs of a stretch of the past, moved to begin now."""
    history = queue.history
    first = max(queue.now_s - policy.arrivals_from_s, float(history.submitted_s.min(initial=queue.now_s)))
    latest = max(first, queue.now_s - policy.coming_s)
    start = generator.uniform(first, latest)
    stop = min(start + policy.coming_s, queue.now_s)
    came = (history.submitted_s >= start) & (history.submitted_s < stop)
    return Jobs(
        history.submitted_s[came] - start + queue.now_s,
        history.gpus[came],
        history.run_s[came],
        history.workspace[came],
        history.priority[came],
    )
