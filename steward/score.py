"""Score the findings against the truth of a simulated fleet: what was found, missed, and said that was not so."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from analytics.idle_parts import QUIET
from analytics.idle_policy import IdlePolicy
from analytics.workload_kinds import kind_of
from fleet.frames import UTC_MICROSECONDS
from fleet.verdict import Verdict

BAD_STATES = frozenset({"degraded", "failing", "failed"})


@dataclass(frozen=True, slots=True)
class Score:
    """Counts of one kind of finding; `unsure` are among the missed, and were answered "unknown"."""

    found: int
    missed: int
    false: int
    unsure: int = 0

    @property
    def precision(self) -> float | None:
        """Return the share of what was said that was so; None where nothing was said."""
        said = self.found + self.false
        return self.found / said if said else None

    @property
    def recall(self) -> float | None:
        """Return the share of what was so that was said; None where nothing was so."""
        there = self.found + self.missed
        return self.found / there if there else None


@dataclass(frozen=True, slots=True)
class FaultScore:
    """The score of faults, with the names of what was missed and the subjects of false alarms."""

    score: Score
    missed_kinds: dict[str, int]
    false_rules: dict[str, int]


def score_idle(verdicts: Sequence[Verdict], work: pl.DataFrame, turns: Sequence[datetime], policy: IdlePolicy) -> Score:
    """Score idle verdicts on held GPUs and slices, turn by turn, over the window of each holder's kind of workload.

    At each turn a unit is truly quiet when its pod did no work for the whole window and the grace before it; a verdict
    that calls it quiet is false when the unit's pod worked at any time from the window's start to the last sample that
    the verdict saw. What lies between counts for neither.
    """
    found = missed = false = unsure = 0
    by_turn = _by_turn(verdicts)
    kinds = {workload: policy.window_of(kind_of(workload)) for workload in work.get_column("workload").unique()}
    window_s = pl.col("workload").replace_strict(kinds, return_dtype=pl.Float64) if kinds else pl.lit(0.0)
    window = pl.duration(microseconds=(window_s * 1e6).cast(pl.Int64))
    units = work.with_columns(window=window, unit=pl.coalesce("slice_uuid", "gpu_uuid"))
    grace = timedelta(seconds=policy.grace_s)
    for now in turns:
        said = by_turn.get(now, {})
        ends = pl.DataFrame(
            [(unit, verdict.until) for unit, verdict in said.items()],
            schema={"unit": pl.String(), "seen_until": UTC_MICROSECONDS},
            orient="row",
        )
        recent = units.join(ends, on="unit", how="left").with_columns(
            since=pl.lit(now) - pl.col("window"), seen_until=pl.col("seen_until").fill_null(now)
        )
        recent = recent.filter((pl.col("ends_at") > pl.col("since")) & (pl.col("starts_at") < pl.col("seen_until")))
        busy = set(recent.filter(pl.col("state").is_in(["working", "stalled"])).get_column("unit"))
        long = (pl.col("starts_at") <= pl.col("since") - grace) & (pl.col("ends_at") >= now)
        idle = set(recent.filter(pl.col("state").is_in(["idle", "idle_held"]) & long).get_column("unit")) - busy
        claimed = {unit for unit, verdict in said.items() if verdict.state in QUIET}
        found += len(idle & claimed)
        missed += len(idle - claimed)
        unsure += sum(unit in said and said[unit].state == "unknown" for unit in idle - claimed)
        false += len(claimed & busy)
    return Score(found, missed, false, unsure)


def score_faults(
    verdicts: Sequence[Verdict], faults: pl.DataFrame, look_back: timedelta, until: datetime
) -> FaultScore:
    """Score health verdicts: each fault that somebody must act on once, each falsely accused GPU once.

    A fault is found when its GPU (for faults of a whole node: any GPU of the node) is called degraded, failing or
    failed while it lasts or within `look_back` of its end.
    """
    bad = [v for v in verdicts if v.topic == "health" and v.state in BAD_STATES]
    actionable = faults.filter(pl.col("is_actionable") & (pl.col("starts_at") < until)).to_dicts()
    found, missed_kinds, explained = 0, dict[str, int](), set[int]()
    for fault in actionable:
        hits = {place for place, verdict in enumerate(bad) if _is_of(verdict, fault, look_back)}
        explained |= hits
        if hits:
            found += 1
        else:
            missed_kinds[fault["kind"]] = missed_kinds.get(fault["kind"], 0) + 1
    wrong = {(v.subject, v.rule) for place, v in enumerate(bad) if place not in explained}
    false_rules: dict[str, int] = {}
    for _, rule in wrong:
        false_rules[rule] = false_rules.get(rule, 0) + 1
    missed = len(actionable) - found
    return FaultScore(Score(found, missed, len({subject for subject, _ in wrong})), missed_kinds, false_rules)


def _is_of(verdict: Verdict, fault: dict[str, object], look_back: timedelta) -> bool:
    starts_at, ends_at = fault["starts_at"], fault["ends_at"]
    if not isinstance(starts_at, datetime) or verdict.made_at < starts_at:
        return False
    if isinstance(ends_at, datetime) and verdict.made_at > ends_at + look_back:
        return False
    if verdict.subject_kind == "gpu" and fault["gpu_uuid"] is not None:
        return verdict.subject == fault["gpu_uuid"]
    return verdict.node == fault["node"]


def _by_turn(verdicts: Sequence[Verdict]) -> dict[datetime, dict[str, Verdict]]:
    turns: dict[datetime, dict[str, Verdict]] = {}
    for verdict in verdicts:
        if verdict.topic == "idle" and verdict.subject_kind in {"gpu", "slice"} and verdict.rule != "unallocated":
            turns.setdefault(verdict.made_at, {})[verdict.subject] = verdict
    return turns
