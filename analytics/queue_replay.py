"""Replay jobs through the rules of a queue: who starts when, with this many GPUs, these quotas, this kind of lending.

The rules are those of a best-effort first-come queue, as Kueue's: in each workspace the job of the highest priority
that came first and fits is started; one that does not fit lets smaller ones behind it pass. A job inside its
workspace's quota goes before one that borrows. Nothing is preempted, and GPUs are counted, not placed: a job of eight
starts where any eight are free. Times are seconds from any moment.
"""

import heapq
from dataclasses import dataclass, field

import numpy as np

from analytics.backtest import Floats, Integers
from fleet.errors import BadInput


@dataclass(frozen=True, slots=True)
class Jobs:
    """Jobs as columns of one length: when they came, how many GPUs for how long, of which workspace (from 0)."""

    submitted_s: Floats
    gpus: Floats
    run_s: Floats
    workspace: Integers
    priority: Integers

    @property
    def count(self) -> int:
        """Return the number of jobs."""
        return self.submitted_s.size


@dataclass(frozen=True, slots=True)
class Rules:
    """GPUs there are, the quota of each workspace (infinite = none), and whether unused quota is lent.

    `changes` are moments at which GPUs come or go, as (seconds, GPUs more). GPUs that go while they are held are
    drained: what runs on them ends in its own time, and nothing new starts meanwhile.
    """

    gpus: float
    quotas: tuple[float, ...]
    is_lending: bool = True
    changes: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        if not 0 <= self.gpus < float("inf"):
            message = f"gpus: {self.gpus} is not a number of GPUs"
            raise BadInput(message, field="gpus")
        for place, quota in enumerate(self.quotas):
            if not quota >= 0:
                message = f"quotas: {quota} of workspace {place} is not a number of GPUs"
                raise BadInput(message, field="quotas")


@dataclass(frozen=True, slots=True)
class Held:
    """What runs already when a replay begins: until when, on how many GPUs, of which workspace."""

    until_s: float
    gpus: float
    workspace: int


@dataclass(slots=True)
class _State:
    free: float
    used: list[float]
    ends: list[tuple[float, float, int]] = field(default_factory=list)
    waiting: list[dict[float, list[tuple[int, float, int]]]] = field(default_factory=list)
    smallest: float = np.inf


def replay(jobs: Jobs, rules: Rules, held: tuple[Held, ...] = (), stop_at: int | None = None) -> Floats:
    """Return when each job starts, in seconds; NaN for one that never does, or not before job `stop_at` does."""
    started = np.full(jobs.count, np.nan)
    state = _State(rules.gpus, [0.0] * len(rules.quotas), waiting=[{} for _ in rules.quotas])
    for each in held:
        state.free -= each.gpus
        state.used[each.workspace] += each.gpus
        heapq.heappush(state.ends, (each.until_s, each.gpus, each.workspace))
    order = np.argsort(jobs.submitted_s, kind="stable")
    arrivals = [*jobs.submitted_s[order].tolist(), np.inf]
    changes = [*sorted(rules.changes), (np.inf, 0.0)]
    next_job = next_change = 0
    while True:
        moment = min(arrivals[next_job], changes[next_change][0], state.ends[0][0] if state.ends else np.inf)
        if moment == np.inf:
            return started
        while state.ends and state.ends[0][0] <= moment:
            _, gpus, workspace = heapq.heappop(state.ends)
            state.free += gpus
            state.used[workspace] -= gpus
        while changes[next_change][0] <= moment:
            state.free += changes[next_change][1]
            next_change += 1
        while arrivals[next_job] <= moment:
            _queue(state, jobs, int(order[next_job]))
            next_job += 1
        if state.free >= state.smallest:
            _start(state, jobs, rules, moment, started)
        if stop_at is not None and np.isfinite(started[stop_at]):
            return started


def _queue(state: _State, jobs: Jobs, job: int) -> None:
    gpus = float(jobs.gpus[job])
    line = state.waiting[int(jobs.workspace[job])].setdefault(gpus, [])
    heapq.heappush(line, (-int(jobs.priority[job]), float(jobs.submitted_s[job]), job))
    state.smallest = min(state.smallest, gpus)


def _start(state: _State, jobs: Jobs, rules: Rules, moment: float, started: Floats) -> None:
    """Start what fits, one job after the other, and note the smallest that goes on waiting."""
    while True:
        best: tuple[bool, int, float, int] | None = None
        for workspace, lines in enumerate(state.waiting):
            room = rules.quotas[workspace] - state.used[workspace]
            for gpus, line in lines.items():
                if gpus > state.free + 1e-9:
                    continue
                is_borrowing = gpus > room + 1e-9
                if is_borrowing and not rules.is_lending:
                    continue
                candidate = (is_borrowing, *line[0])
                best = candidate if best is None or candidate < best else best
        if best is None:
            break
        _run(state, jobs, best[3], moment, started)
    state.smallest = min((gpus for lines in state.waiting for gpus in lines), default=np.inf)


def _run(state: _State, jobs: Jobs, job: int, moment: float, started: Floats) -> None:
    gpus, workspace = float(jobs.gpus[job]), int(jobs.workspace[job])
    line = state.waiting[workspace][gpus]
    heapq.heappop(line)
    if not line:
        del state.waiting[workspace][gpus]
    started[job] = moment
    state.free -= gpus
    state.used[workspace] += gpus
    heapq.heappush(state.ends, (moment + float(jobs.run_s[job]), gpus, workspace))
