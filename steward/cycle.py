"""The turn: collect, store, analyse, decide, rehearse; one function of numbered steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from actions.apply import apply
from actions.budget import Made, made_of
from actions.plan import plan
from actions.restart import settle
from actions.rows import moves_from, outcome_frame, outcomes_from, plan_frames
from fleet.batch import Batch, Trouble
from fleet.errors import BadInput, SourceFailed
from fleet.move import Outcome, Plan
from fleet.verdict import Verdict
from steward.brake import is_braked
from steward.compose import House, begin_sources, load_node_prices
from steward.identity_step import NAME, join_identity
from steward.judge import Findings, judge

ACTOR = "gpu-steward"


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
    """Turn once. Moves are rehearsed, and made only for rules whose mode is "auto"."""
    # 0. Settle: moves of before whose end was never recorded, by what the clusters show now.
    settle_unfinished(house)
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
    # 6. Act: guarded again, rehearsed first, recorded before and after.
    outcomes = [outcome for each in plans for outcome in carry_out(house, each, is_dry_run=True)]
    return Turn(now, collected, findings, plans, tuple(outcomes))


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


def settle_unfinished(house: House) -> list[Outcome]:
    """Record what became of moves that a crash left without a result; a cluster that can't be read waits."""
    moves = moves_from(house.store.read("move").get_column("body"))
    settled: list[Outcome] = []
    for cluster in house.clusters:
        outcomes = outcomes_from(house.store.read("outcome"))
        try:
            settled += settle(moves, outcomes, cluster, house.clock, _recorder(house), actor=ACTOR)
        except SourceFailed as error:
            house.store.append(Batch(cluster.name, troubles=(Trouble("failed", cluster.name, str(error)),)))
    return settled


def record_findings(house: House, findings: Findings) -> None:
    """Store the frames of an analysis."""
    for table, frame in findings.frames.items():
        house.store.append_stored(table, frame)


def make_plans(house: House, verdicts: Sequence[Verdict], now: datetime) -> tuple[Plan, ...]:
    """Plan for each cluster on its fresh state, and record the plans."""
    plans = []
    for cluster in house.clusters:
        state = cluster.observe()
        made = plan(state, verdicts, house.settings.actions, now, recent=recent_moves(house))
        for table, frame in plan_frames(made).items():
            house.store.append_stored(table, frame)
        plans.append(made)
    return tuple(plans)


def carry_out(house: House, made: Plan, *, is_dry_run: bool, is_approved: bool = False) -> list[Outcome]:
    """Rehearse a plan's moves, or make them; each is recorded before and after."""
    # What changes nothing may be written at the end, in one go.
    record = (lambda _outcome: None) if is_dry_run else _recorder(house)
    outcomes: list[Outcome] = []
    for cluster in house.clusters:
        outcomes += apply(
            made,
            cluster,
            house.settings.actions,
            house.clock,
            record,
            actor=ACTOR,
            kill_switch=lambda: is_braked(house.store.path),
            is_dry_run=is_dry_run,
            recent=recent_moves(house),
            approved=frozenset({made.plan_id}) if is_approved else frozenset(),
        )
    if is_dry_run and outcomes:
        house.store.append_stored("outcome", outcome_frame(outcomes))
    return outcomes


def recent_moves(house: House) -> tuple[Made, ...]:
    """Return what was made before, which budgets and cooldowns count."""
    moves = moves_from(house.store.read("move").get_column("body"))
    return made_of(moves, outcomes_from(house.store.read("outcome")))


def _recorder(house: House) -> Callable[[Outcome], None]:
    def record(outcome: Outcome) -> None:
        house.store.append_stored("outcome", outcome_frame([outcome]))

    return record


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
