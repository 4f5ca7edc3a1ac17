"""The turn: collect, store, analyse, decide, act; one function of numbered steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from actions.places import without_doubtful
from actions.plan import plan
from actions.rows import plan_frames
from controller.workspace import propose_workspaces
from fleet.batch import Batch, Trouble
from fleet.errors import BadInput, SourceFailed
from fleet.move import Outcome, Plan
from fleet.verdict import Verdict
from steward.acting import act, resume_unfinished
from steward.carry import ACTOR, carry_out, recent_moves, settle_unfinished
from steward.compose import House, begin_sources, load_node_prices
from steward.identity_step import NAME, join_identity
from steward.judge import Findings, judge
from steward.workspaces import desired_of

__all__ = [
    "ACTOR", "Collected", "Turn", "carry_out", "collect", "day_ends", "make_plans", "recent_moves", "record_findings",
    "settle_unfinished", "turn",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Collected:
    """What one reading of the sources brought: rows new or changed by table, and what went wrong."""

    rows: dict[str, int]
    troubles: tuple[tuple[str, Trouble], ...] = ()
    first_sample_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of the loop did."""

    now: datetime
    collected: Collected
    findings: Findings
    plans: tuple[Plan, ...]
    outcomes: tuple[Outcome, ...]


def turn(house: House, now: datetime) -> Turn:
    """Turn once. What people or a rule's mode "auto" let through is made; everything else is rehearsed."""
    # 0. Settle: moves of before whose end was never recorded, by what the clusters show now; then go on with them.
    settle_unfinished(house)
    resumed = resume_unfinished(house, now)
    # 1. Collect: each source from its watermark to now; one that fails is recorded and the others go on.
    collected = collect(house, now)
    # 2. Roll up: the hours that new samples touched.
    if collected.first_sample_at is not None:
        house.store.roll_up(collected.first_sample_at, now)
    # 3. Analyse: verdicts, forecasts and the ledger of the last hours.
    findings = judge(house, now)
    # 4. Record what was found.
    record_findings(house, findings)
    # 5. Decide on fresh state, and record the plan.
    plans = make_plans(house, findings.verdicts, now)
    # 6. Act: put before people, guarded again, rehearsed first, recorded before and after.
    outcomes = act(house, plans, now)
    return Turn(now, collected, findings, plans, (*resumed, *outcomes))


def collect(house: House, now: datetime) -> Collected:
    """Read every source from its watermark up to `now`, store what it tells, and join pods with their devices."""
    rows: dict[str, int] = {}
    troubles: list[tuple[str, Trouble]] = []
    first: datetime | None = None
    begin_sources(house.sources)
    for source in house.sources:
        try:
            for batch in source.collect(house.store.watermark(source.name), now):
                first = _earlier(first, _first_sample(batch))
                for table, count in house.store.append(batch).items():
                    rows[table] = rows.get(table, 0) + count
                troubles.extend((source.name, trouble) for trouble in batch.troubles)
        except SourceFailed as error:
            trouble = Trouble("failed", source.name, str(error))
            house.store.append(Batch(source.name, troubles=(trouble,)))
            troubles.append((source.name, trouble))
    try:
        # nodes that were seen for the first time may have a price
        troubles.extend(("prices", trouble) for trouble in load_node_prices(house.settings, house.store))
    except BadInput as error:
        troubles.append(("prices", Trouble("failed", "prices", str(error))))
    allocated, strange = join_identity(house, now)
    if allocated:
        rows["pod_allocation"] = rows.get("pod_allocation", 0) + allocated
    troubles.extend((NAME, trouble) for trouble in strange)
    return Collected(rows, tuple(troubles), first)


def record_findings(house: House, findings: Findings) -> None:
    """Store the frames of an analysis."""
    for table, frame in findings.frames.items():
        house.store.append_stored(table, frame)


def make_plans(house: House, verdicts: Sequence[Verdict], now: datetime) -> tuple[Plan, ...]:
    """Plan for each cluster on its fresh state, and record the plans; one that can't be read is passed over."""
    plans = []
    states = {}
    for cluster in house.clusters:
        try:
            states[cluster.name] = cluster.observe()
        except SourceFailed as error:
            house.store.append(Batch(cluster.name, troubles=(Trouble("failed", cluster.name, str(error)),)))
    known, held = without_doubtful(verdicts, states)
    recent, desired = recent_moves(house), desired_of(house.store)
    for name, state in states.items():
        further = {"workspace": propose_workspaces(desired, state, name)}
        made = plan(state, known, house.settings.actions, now, recent=recent, further=further, held_back=held)
        for table, frame in plan_frames(made).items():
            house.store.append_stored(table, frame)
        plans.append(made)
    return tuple(plans)


def _first_sample(batch: Batch) -> datetime | None:
    frame = batch.frames.get("gpu_sample")
    if frame is None or frame.is_empty():
        return None
    moment = frame.select(pl.col("ts").min()).item()
    return moment if isinstance(moment, datetime) else None


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)


def day_ends(since: datetime, until: datetime, step: timedelta) -> list[datetime]:
    """Return the moments at which a replay of `[since, until]` turns: every `step`, and at the end."""
    moments = []
    moment = since + step
    while moment < until:
        moments.append(moment)
        moment += step
    return [*moments, until]
