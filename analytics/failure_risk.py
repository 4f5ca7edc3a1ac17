"""Estimate how likely a GPU or node is to fail within days, from whatever faults were seen before.

A subject's score is a fading memory of its own faults: the sum over them of weight * exp(-age / memory), the weight
telling how often faults of that kind come back. How a score becomes a probability is learnt from the same history, by
an isotonic fit over every day and subject: it can only rise with the score, keeps ties where the history has no
reason to tell subjects apart, and puts those that never failed at their own rate. Where the history is too short
the published figures of `RiskPolicy` stand in, and the answer says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fleet.bounds import require_between, require_positive
from fleet.frames import UTC_MICROSECONDS

HORIZONS_D = (1, 7, 30)
FAULTS = {"subject": pl.String(), "ts": UTC_MICROSECONDS, "kind": pl.String()}
"""One row a fault: who, when it began, what kind (null = not told)."""
EXPOSURE = {"subject": pl.String(), "since": UTC_MICROSECONDS, "until": UTC_MICROSECONDS}
"""One row a life in service: from when to when a subject could fail and be seen to; null `until` = still there."""

_DAY_S = 86400.0
_BINS = 20
Floats = NDArray[np.float64]
_Matrix = NDArray[np.float32]
Flags = NDArray[np.bool_]
Curve = tuple[tuple[float, ...], tuple[float, ...]]
Curves = Mapping[int, Curve]


@dataclass(frozen=True, slots=True)
class Published:
    """Rates to begin with: share of subjects with a fault within 1, 7, 30 days, in general and after a repair."""

    base: tuple[float, float, float]
    after_repair: tuple[float, float, float]
    source: str


GPU_RATES = Published(
    (0.0002, 0.0012, 0.0052),
    (0.020, 0.055, 0.097),
    "Titan, 30,207 K20X: 0.52 % in 30 days, 9.7 % after a double-bit error; 1 and 7 days by InfiniteHBD's shape",
)
NODE_RATES = Published(
    (0.002, 0.015, 0.062), (0.094, 0.181, 0.282), "InfiniteHBD, 400 servers over 349 days, hardware faults"
)


@dataclass(frozen=True, slots=True)
class RiskPolicy:
    """How risk is learnt.

    `memories_d`: memories tried, in days. A history counts from `faults_min` faults over `days_min` days. Faults of
    one subject within `burst_s` are one. Rates of few cases are drawn to the mean as by `shrink_faults` cases more.
    An alarm needs `lift_min` times the base rate, and keeps to `false_alarms_per_day_max`.
    """

    memories_d: tuple[float, ...] = (7.0, 14.0, 30.0)
    faults_min: int = 30
    days_min: float = 60.0
    shrink_faults: float = 20.0
    burst_s: float = 21600.0
    lift_min: float = 3.0
    false_alarms_per_day_max: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        require_positive("memories_d", len(self.memories_d))
        for memory_d in self.memories_d:
            require_positive("memories_d", memory_d)
        require_between("faults_min", self.faults_min, 1, float("inf"))
        require_positive("days_min", self.days_min)
        require_positive("shrink_faults", self.shrink_faults)
        require_between("burst_s", self.burst_s, 0, float("inf"))
        require_between("lift_min", self.lift_min, 1, float("inf"))
        require_between("false_alarms_per_day_max", self.false_alarms_per_day_max, 0, float("inf"))


@dataclass(frozen=True, slots=True)
class RiskModel:
    """What was learnt. `curves`: by horizon in days, scores and the probability at each; `source` names its basis."""

    memory_d: float
    weights: Mapping[str, float]
    curves: Curves
    repeat_curves: Curves
    base: Mapping[int, float]
    alert_line: float | None
    fault_count: int
    source: str

    def risk(self, score: Floats, horizon_d: int) -> Floats:
        """Return the probability of a fault within `horizon_d` days at each score, on any day in service."""
        scores, chances = self.curves[horizon_d]
        return np.interp(score, scores, chances)

    def repeat_risk(self, score: Floats, horizon_d: int) -> Floats:
        """Return the probability that a fault which just happened, at each score with it, comes back in that time."""
        scores, chances = self.repeat_curves[horizon_d]
        return np.interp(score, scores, chances)


@dataclass(frozen=True, slots=True)
class Days:
    """A history laid over days: one row a subject that ever failed, one column a day; others are only counted."""

    score: _Matrix
    hits: NDArray[np.int32]
    exposed: Flags
    never: NDArray[np.int64]

    def labels(self, horizon_d: int) -> Flags:
        """Return whether a fault began within the `horizon_d` days after each day, where all of them were seen."""
        total = np.concatenate([np.zeros((len(self.hits), 1), np.int64), np.cumsum(self.hits, axis=1)], axis=1)
        days = max(self.hits.shape[1] - horizon_d, 0)
        rose: Flags = (total[:, 1 + horizon_d : 1 + horizon_d + days] - total[:, 1 : 1 + days]) > 0
        return rose


def fit_risk(
    faults: pl.DataFrame, exposure: pl.DataFrame, until: datetime, policy: RiskPolicy, published: Published
) -> RiskModel:
    """Learn from the faults before `until`; where they are too few or too short, return the published rates.

    The memory is the one whose curve, learnt on the earlier two thirds, gave the later third the better likelihood.
    """
    known = without_bursts(_before(faults, until), policy.burst_s)
    lives = exposure.filter(pl.col("since") < until)
    first = lives.get_column("since").min()
    span_d = (until - first).total_seconds() / _DAY_S if isinstance(first, datetime) else 0.0
    if known.height < policy.faults_min or span_d < policy.days_min or not isinstance(first, datetime):
        return published_model(published, policy, known.height)
    weights = _kind_weights(known, policy)
    chosen = max(policy.memories_d, key=lambda memory_d: _likelihood(known, lives, (first, until), weights, memory_d))
    days = lay_over_days(known, lives, (first, until), weights, chosen)
    curves, base = _curves(days)
    repeats = _repeat_curves(known, until, weights, chosen, policy.shrink_faults)
    model = RiskModel(chosen, weights, curves, repeats, base, None, known.height, "history")
    return replace(model, alert_line=alert_line(model, days, policy))


def published_model(published: Published, policy: RiskPolicy, fault_count: int = 0) -> RiskModel:
    """Return a model of the published rates: the base at score 0, the rate after a repair at one fresh fault."""
    curves = {
        horizon: ((0.0, 1.0), (base, after))
        for horizon, base, after in zip(HORIZONS_D, published.base, published.after_repair, strict=True)
    }
    base = dict(zip(HORIZONS_D, published.base, strict=True))
    memory_d = policy.memories_d[len(policy.memories_d) // 2]
    return RiskModel(
        memory_d, MappingProxyType({}), MappingProxyType(curves), MappingProxyType(curves), MappingProxyType(base),
        None, fault_count, f"published: {published.source}",
    )  # fmt: skip


def predict_risk(model: RiskModel, faults: pl.DataFrame, subjects: pl.Series, at: datetime) -> pl.DataFrame:
    """Return each subject's risk at one moment: subject, score, risk_1d, risk_7d, risk_30d, fault_count, last_fault_at.

    Only faults at or before `at` count. The risks rise with the horizon; the base rates stand in the model.
    """
    age_d = (pl.lit(at, dtype=UTC_MICROSECONDS) - pl.col("ts")).dt.total_microseconds() / (_DAY_S * 1e6)
    weight = pl.col("kind").fill_null("").replace_strict(dict(model.weights), default=1.0, return_dtype=pl.Float64)
    scored = (
        faults.filter(pl.col("ts") <= at)
        .sort("subject", "ts", "kind")  # so that the same faults add up to the same last digit
        .with_columns(part=weight * (-age_d / model.memory_d).exp())
        .group_by("subject", maintain_order=True)
        .agg(score=pl.col("part").sum(), fault_count=pl.len(), last_fault_at=pl.col("ts").max())
    )
    asked = pl.DataFrame({"subject": subjects.cast(pl.String)})
    joined = asked.join(scored, on="subject", how="left", maintain_order="left")
    # A subject without a fault in the history has the score and the count of none: that is known, not missing.
    told = joined.with_columns(
        pl.coalesce("score", pl.lit(0.0)).alias("score"),
        pl.coalesce("fault_count", pl.lit(0, dtype=pl.UInt32)).cast(pl.Int64).alias("fault_count"),
    )
    score = told.get_column("score").to_numpy()
    risen = np.maximum.accumulate([model.risk(score, horizon) for horizon in HORIZONS_D])
    return told.with_columns(pl.Series(f"risk_{horizon}d", row) for horizon, row in zip(HORIZONS_D, risen, strict=True))


def combined(risks: Floats) -> float:
    """Return the chance that at least one of several independent parts fails."""
    return float(1.0 - np.prod(1.0 - risks))


def lay_over_days(
    faults: pl.DataFrame,
    exposure: pl.DataFrame,
    span: tuple[datetime, datetime],
    weights: Mapping[str, float],
    memory_d: float,
) -> Days:
    """Return scores, faults and exposure of every subject at the end of each whole day of `span`."""
    since, until = span
    count = max(int((until - since).total_seconds() // _DAY_S), 1)
    inside = faults.filter(pl.col("ts") < until, pl.col("ts") >= since).sort("subject", "ts")
    names = inside.get_column("subject").unique(maintain_order=True)
    rows = dict(zip(names, range(len(names)), strict=True))
    score = np.zeros((len(names), count), np.float32)
    hits = np.zeros((len(names), count), np.int32)
    who = np.array([rows[name] for name in inside.get_column("subject")], np.int64)
    when = _days_since(inside.get_column("ts"), since)
    day = np.minimum(when.astype(np.int64), count - 1)
    weight = np.array([weights.get(kind or "", 1.0) for kind in inside.get_column("kind")])
    np.add.at(hits, (who, day), 1)
    np.add.at(score, (who, day), (weight * np.exp(-(np.floor(when) + 1 - when) / memory_d)).astype(np.float32))
    fade = np.float32(np.exp(-1.0 / memory_d))
    for place in range(1, count):
        score[:, place] += score[:, place - 1] * fade
    exposed, never = _exposed(exposure, rows, since, count)
    return Days(score, hits, exposed, never)


def alert_line(model: RiskModel, days: Days, policy: RiskPolicy, horizon_d: int = 7) -> float | None:
    """Return the lowest risk to alarm at that keeps false alarms within the budget a day; None where none does.

    A false alarm is a subject that rises to the line with no fault in the horizon after.
    """
    labels = days.labels(horizon_d)
    if labels.size == 0:
        return None
    seen = labels.shape[1]
    risk = model.risk(days.score[:, :seen].astype(np.float64), horizon_d)
    risk[~days.exposed[:, :seen]] = 0.0
    before = np.concatenate([np.zeros((len(risk), 1)), risk[:, :-1]], axis=1)
    floor = max(model.base[horizon_d] * policy.lift_min, float(model.risk(np.zeros(1), horizon_d)[0]))
    line = None
    for candidate in sorted({float(value) for value in model.curves[horizon_d][1] if value >= floor > 0}, reverse=True):
        false = ((risk >= candidate) & (before < candidate) & ~labels).sum()
        if false / seen > policy.false_alarms_per_day_max:
            break
        line = candidate
    return line


def without_bursts(faults: pl.DataFrame, burst_s: float) -> pl.DataFrame:
    """Return the faults, sorted, without those that follow another of the same subject within `burst_s`."""
    told = faults.sort("subject", "ts", "kind")
    gap = pl.col("ts") - pl.col("ts").shift(1).over("subject")
    return told.filter(gap.is_null() | (gap > pl.duration(microseconds=round(burst_s * 1e6))))


def with_scores(faults: pl.DataFrame, weights: Mapping[str, float], memory_d: float) -> pl.DataFrame:
    """Return the faults, sorted, each with its subject's score just after it."""
    told = faults.sort("subject", "ts", "kind")
    before: tuple[str, datetime, float] | None = None
    scores = []
    for subject, ts, kind in told.select("subject", "ts", "kind").iter_rows():
        score = weights.get(kind or "", 1.0)
        if before is not None and before[0] == subject:
            score += before[2] * float(np.exp(-(ts - before[1]).total_seconds() / _DAY_S / memory_d))
        scores.append(score)
        before = subject, ts, score
    return told.with_columns(score=pl.Series(scores, dtype=pl.Float64))


def comes_back(horizon_d: int) -> pl.Expr:
    """Return whether the subject fails again within `horizon_d` days; for faults sorted by subject and time."""
    follows = (pl.col("ts").shift(-1).over("subject") - pl.col("ts")) <= pl.duration(days=horizon_d)
    return follows.fill_null(value=False)


def _repeat_curves(
    faults: pl.DataFrame, until: datetime, weights: Mapping[str, float], memory_d: float, shrink: float
) -> Curves:
    """Learn, at each fault that was followed for long enough, whether it came back; parts are drawn to the mean."""
    scored = with_scores(faults, weights, memory_d)
    curves: dict[int, Curve] = {}
    for horizon in HORIZONS_D:
        seen = scored.with_columns(again=comes_back(horizon)).filter(pl.col("ts") <= until - timedelta(days=horizon))
        order = seen.sort("score")
        score, again = order.get_column("score").to_numpy(), order.get_column("again").to_numpy()
        if not len(score):
            curves[horizon] = ((0.0,), (0.0,))
            continue
        parts = np.array_split(np.arange(len(score)), min(max(len(score) // 100, 1), 10))
        mean = float(again.mean())
        size = np.array([float(len(part)) for part in parts])
        hit = np.array([float(again[part].sum()) for part in parts])
        risen = _risen((hit + shrink * mean) / (size + shrink), size)
        curves[horizon] = tuple(float(score[part].mean()) for part in parts), risen
    return MappingProxyType(curves)


def _before(faults: pl.DataFrame, until: datetime) -> pl.DataFrame:
    return faults.filter(pl.col("ts") < until).sort("subject", "ts")


def _kind_weights(faults: pl.DataFrame, policy: RiskPolicy) -> Mapping[str, float]:
    """Return for each kind how often another fault follows within 30 days, over all faults' share; shrunk to 1."""
    told = faults.with_columns(again=comes_back(HORIZONS_D[-1]))
    share = told.get_column("again").mean()
    if not isinstance(share, float) or share <= 0:
        return MappingProxyType({})
    m = policy.shrink_faults
    by_kind = told.group_by(pl.col("kind").fill_null("")).agg(again=pl.col("again").sum(), count=pl.len())
    return MappingProxyType(
        {row["kind"]: (row["again"] + m * share) / (row["count"] + m) / share for row in by_kind.iter_rows(named=True)}
    )


def _likelihood(
    faults: pl.DataFrame,
    exposure: pl.DataFrame,
    span: tuple[datetime, datetime],
    weights: Mapping[str, float],
    memory_d: float,
) -> float:
    """Return the log likelihood that a curve of the earlier two thirds gives the later third, at 7 days."""
    cut = span[0] + (span[1] - span[0]) * (2 / 3)
    earlier = lay_over_days(_before(faults, cut), exposure, (span[0], cut), weights, memory_d)
    curves, _ = _curves(earlier)
    model = RiskModel(memory_d, weights, curves, {}, {}, None, 0, "")
    days = lay_over_days(faults, exposure, span, weights, memory_d)
    labels, first = days.labels(7), int((cut - span[0]).total_seconds() // _DAY_S)
    seen = labels.shape[1]
    if seen <= first:
        return 0.0
    mask = days.exposed[:, first:seen]
    chance = np.clip(model.risk(days.score[:, first:seen].astype(np.float64), 7), 1e-9, 1 - 1e-9)[mask]
    happened = labels[:, first:][mask]
    quiet = float(np.log1p(-np.clip(model.risk(np.zeros(1), 7)[0], 0, 1 - 1e-9)) * days.never[first:seen].sum())
    return float(np.log(np.where(happened, chance, 1 - chance)).sum()) + quiet


def _curves(
    days: Days,
) -> tuple[Curves, Mapping[int, float]]:
    curves: dict[int, Curve] = {}
    base: dict[int, float] = {}
    for horizon in HORIZONS_D:
        labels = days.labels(horizon)
        seen = labels.shape[1]
        if seen <= 0:
            curves[horizon], base[horizon] = ((0.0,), (0.0,)), 0.0
            continue
        mask = days.exposed[:, :seen]
        scores, happened = days.score[:, :seen][mask].astype(np.float64), labels[mask]
        quiet = int(days.never[:seen].sum())
        base[horizon] = float(happened.sum() / max(len(happened) + quiet, 1))
        curves[horizon] = _curve(scores, happened, quiet)
    return MappingProxyType(curves), MappingProxyType(base)


def _curve(scores: Floats, happened: Flags, quiet: int) -> Curve:
    """Return mean score and monotone share of faults in bins of equal size; the first holds the scores of zero."""
    is_zero = scores <= 0
    mean, share = [0.0], [float(happened[is_zero].sum() / max(is_zero.sum() + quiet, 1))]
    size = [float(max(is_zero.sum() + quiet, 1))]
    rest, hit = scores[~is_zero], happened[~is_zero]
    order = np.argsort(rest, kind="stable")
    for part in np.array_split(order, min(_BINS, max(len(order) // 50, 1))):
        if len(part):
            mean.append(float(rest[part].mean()))
            share.append(float(hit[part].mean()))
            size.append(float(len(part)))
    return tuple(mean), _risen(np.array(share), np.array(size))


def _exposed(
    exposure: pl.DataFrame, rows: Mapping[str, int], since: datetime, count: int
) -> tuple[Flags, NDArray[np.int64]]:
    """Return which subjects were in service at the end of each day, and how many of those that never failed."""
    exposed = np.zeros((len(rows), count), bool)
    change = np.zeros(count + 1, np.int64)
    end = since + timedelta(days=count + 1)
    begun = np.ceil(np.maximum(_days_since(exposure.get_column("since"), since), 0.0)).astype(np.int64)
    ended = _days_since(exposure.get_column("until").fill_null(end), since)
    # Day d ends at d + 1: it is in when since <= d + 1 < until.
    first = np.maximum(begun - 1, 0)
    last = np.clip(np.ceil(ended - 1), 0, count).astype(np.int64)
    for name, start, stop in zip(exposure.get_column("subject"), first, last, strict=True):
        row = rows.get(name)
        if row is not None:
            exposed[row, start:stop] = True
        elif stop > start:
            change[start] += 1
            change[stop] -= 1
    return exposed, np.cumsum(change)[:count]


def _days_since(moments: pl.Series, since: datetime) -> Floats:
    passed = (moments - pl.Series([since], dtype=UTC_MICROSECONDS)).dt.total_microseconds()
    return passed.to_numpy().astype(np.float64) / (_DAY_S * 1e6)


def _risen(shares: Floats, sizes: Floats) -> tuple[float, ...]:
    """Return the shares made to rise, neighbours that fall being averaged by their sizes."""
    from sklearn.isotonic import isotonic_regression  # noqa: PLC0415 - two seconds that few commands need

    return tuple(float(value) for value in isotonic_regression(shares, sample_weight=sizes))
