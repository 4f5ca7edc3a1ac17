"""What if there were more GPUs, other quotas, lending, idle ones taken back, a rack drained: recorded jobs, replayed.

Both worlds are replayed by the same rules (`queue_replay`), the recorded one too, so that what differs is the change
and not the replay. Waits are those of the replay, not of the record.
"""

from dataclasses import dataclass
from dataclasses import replace as changed
from decimal import Decimal

import numpy as np
import polars as pl

from analytics.backtest import Floats
from analytics.queue_replay import Jobs, Rules, replay
from fleet.bounds import require_between
from fleet.errors import BadInput

_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Drain:
    """`gpus` go at `from_s` and come back at `until_s` (infinite: they do not)."""

    gpus: float
    from_s: float
    until_s: float = float("inf")


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is changed: GPUs more (or fewer, below zero), quotas moved, lending, idle GPUs taken back, a rack drained.

    `quota_moves` are GPUs more by workspace number; `idle_share` is, by workspace number, the part of each job's run
    time that its GPUs do nothing and that is taken back at its end. None of `is_lending` leaves that as it is.
    """

    gpus_more: float = 0.0
    quota_moves: tuple[tuple[int, float], ...] = ()
    is_lending: bool | None = None
    idle_share: tuple[tuple[int, float], ...] = ()
    drains: tuple[Drain, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        for _, share in self.idle_share:
            require_between("idle_share", share, 0.0, 1.0)
        for drain in self.drains:
            require_between("drains.gpus", drain.gpus, 0.0, 1e9)


@dataclass(frozen=True, slots=True)
class World:
    """What came of a replay over a window, for all jobs; waits count up to the window's end for those still waiting.

    `utilisation` is GPU-hours run in the window over GPU-hours there were; money None = no price given.
    """

    jobs: int
    started: int
    wait_s_mean: float | None
    wait_s_p50: float | None
    wait_s_p95: float | None
    gpu_hours_run: float
    gpu_hours_there: float
    utilisation: float | None
    cost_usd: Decimal | None


def change(jobs: Jobs, rules: Rules, scenario: Scenario) -> tuple[Jobs, Rules]:
    """Return jobs and rules as the scenario has them; raises `BadInput` where a quota or the GPUs fall below zero."""
    quotas = list(rules.quotas)
    for workspace, gpus in scenario.quota_moves:
        if quotas[workspace] == float("inf"):
            message = f"quota_moves: workspace {workspace} has no quota to move"
            raise BadInput(message, field="quota_moves")
        quotas[workspace] += gpus
        if quotas[workspace] < 0:
            message = f"quota_moves: workspace {workspace} would have {quotas[workspace]} GPUs"
            raise BadInput(message, field="quota_moves")
    if rules.gpus + scenario.gpus_more < 0:
        message = f"gpus_more: {scenario.gpus_more} of {rules.gpus} GPUs can't go"
        raise BadInput(message, field="gpus_more")
    share = np.zeros(len(quotas))
    for workspace, idle in scenario.idle_share:
        share[workspace] = idle
    moments = [(drain.from_s, -drain.gpus) for drain in scenario.drains]
    moments += [(drain.until_s, drain.gpus) for drain in scenario.drains if np.isfinite(drain.until_s)]
    is_lending = rules.is_lending if scenario.is_lending is None else scenario.is_lending
    then = Rules(rules.gpus + scenario.gpus_more, tuple(quotas), is_lending, (*rules.changes, *sorted(moments)))
    return changed(jobs, run_s=jobs.run_s * (1.0 - share[jobs.workspace])), then


def measure(
    jobs: Jobs, rules: Rules, started: Floats, window_s: tuple[float, float], usd_per_gpu_hour: Decimal | None = None
) -> World:
    """Return what came of a replay over the window, in which all the jobs came."""
    begin, end = window_s
    ends = np.where(np.isfinite(started), started + jobs.run_s, np.inf)
    inside = np.clip(np.minimum(ends, end) - np.maximum(np.where(np.isfinite(started), started, end), begin), 0, None)
    there = _gpu_hours_there(rules, begin, end)
    run = float((inside * jobs.gpus).sum()) / _HOUR_S
    waits = waits_of(jobs, started, end)
    cost = None if usd_per_gpu_hour is None else (Decimal(str(round(there, 6))) * usd_per_gpu_hour)
    return World(
        jobs.count, int((started <= end).sum()), *_spread(waits), run, there,
        run / there if there > 0 else None, None if cost is None else cost.quantize(Decimal("0.01")),
    )  # fmt: skip


def waits_of(jobs: Jobs, started: Floats, end_s: float) -> Floats:
    """Return how long each job waited, in seconds, up to `end_s` where it had not started by then."""
    waits: Floats = np.where(started <= end_s, started, end_s) - jobs.submitted_s
    return np.maximum(waits, 0.0)


def compare(
    jobs: Jobs,
    rules: Rules,
    scenario: Scenario,
    window_s: tuple[float, float],
    usd_per_gpu_hour: Decimal | None = None,
) -> tuple[World, World, pl.DataFrame]:
    """Return the world as recorded, the world as it would be, and both by workspace (number)."""
    then_jobs, then_rules = change(jobs, rules, scenario)
    now_started, then_started = replay(jobs, rules), replay(then_jobs, then_rules)
    before = measure(jobs, rules, now_started, window_s, usd_per_gpu_hour)
    after = measure(then_jobs, then_rules, then_started, window_s, usd_per_gpu_hour)
    rows: list[dict[str, object]] = []
    for workspace in range(len(rules.quotas)):
        mine = jobs.workspace == workspace
        row: dict[str, object] = {"workspace": workspace, "jobs": int(mine.sum())}
        for name, own, started in (("now", jobs, now_started), ("then", then_jobs, then_started)):
            mean, _, late = _spread(waits_of(own, started, window_s[1])[mine])
            row |= {f"wait_s_mean_{name}": mean, f"wait_s_p95_{name}": late}
        rows.append(row)
    counts = dict.fromkeys(("workspace", "jobs"), pl.Int64())
    waits = [f"wait_s_{what}_{name}" for name in ("now", "then") for what in ("mean", "p95")]
    return before, after, pl.DataFrame(rows, schema={**counts, **dict.fromkeys(waits, pl.Float64())})


def _gpu_hours_there(rules: Rules, begin: float, end: float) -> float:
    there, gpus, since = 0.0, rules.gpus, begin
    for moment, more in sorted(rules.changes):
        until = min(max(moment, begin), end)
        there += gpus * (until - since)
        gpus, since = gpus + more, until
    return (there + gpus * (end - since)) / _HOUR_S


def _spread(waits: Floats) -> tuple[float | None, float | None, float | None]:
    if waits.size == 0:
        return None, None, None
    return float(waits.mean()), float(np.quantile(waits, 0.5)), float(np.quantile(waits, 0.95))
