"""Forecast the GPUs each workspace and cluster will want, hour by hour, with intervals and a back-test of each.

What is forecast is unconstrained demand: GPUs running plus GPUs waited for. A gap stays a gap; only a forecaster
reaches back over it to the last value known. Whatever does not beat the last value in the back-test is not used.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analytics.backtest import LAST_VALUE, Floats, Forecaster, Integers, Score, back_test, conformal_offsets
from analytics.combination import LEVELS, Combination, score_combination
from analytics.points import FadingBlend, LastValue, SeasonalNaive
from fleet.bounds import require_between, require_positive
from fleet.errors import BadFrame, BadInput
from fleet.frames import UTC_MICROSECONDS, conform
from fleet.tables import FORECAST

TOTAL = "*"
COMBINATION = "combination"
_HOUR_S = 3600
_NEEDED = ("cluster", "workspace", "pool", "model", "ts", "running_gpus_mean", "pending_gpus_mean", "capacity_gpus_max")


@dataclass(frozen=True, slots=True)
class ForecastPolicy:
    """How far to look ahead and back; under `history_min_days` of history a forecast says so in its note."""

    horizon_h: int = 24
    history_min_days: int = 14
    context_days: int = 56
    step_h: int = 1
    season_h: int = 24

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        for name in ("horizon_h", "history_min_days", "context_days", "step_h", "season_h"):
            require_positive(name, getattr(self, name))
        require_between("context_days", self.context_days, self.history_min_days, 3660)
        require_between("horizon_h", self.horizon_h, self.step_h, 24 * 366)
        require_between("season_h", self.season_h, self.step_h, 24 * 366)
        for name in ("horizon_h", "season_h"):
            if getattr(self, name) % self.step_h != 0:
                message = f"{name}: {getattr(self, name)} is not a multiple of step_h {self.step_h}"
                raise BadInput(message, field=name)

    @property
    def horizon(self) -> int:
        """Return the number of steps to forecast."""
        return self.horizon_h // self.step_h

    @property
    def season(self) -> int:
        """Return the number of steps in a season."""
        return self.season_h // self.step_h

    @property
    def length(self) -> int:
        """Return the number of steps to look back on."""
        return self.context_days * 24 // self.step_h


def forecasters(policy: ForecastPolicy) -> Mapping[str, Forecaster]:
    """Return the forecasters that compete, by the name that the table `forecast` gives them."""
    return {
        LAST_VALUE: LastValue(),
        "seasonal_naive": SeasonalNaive(policy.season),
        "fading_blend": FadingBlend(fade=24 / policy.step_h, memory=72 / policy.step_h),
    }


def make_forecasts(hourly: pl.DataFrame, policy: ForecastPolicy, now: datetime) -> pl.DataFrame:
    """Forecast each workspace and each cluster's total (workspace "*") from what `hourly_demand` gives.

    Returns rows of the table `forecast`, one for each step from the clock hour of `now` on: the median is never
    negative and lies within its intervals. GPUs are null where nothing was ever known, an interval's ends where
    there are too few residuals for it. The step in progress is not learnt from: it is the first one forecast.
    """
    missing = [name for name in _NEEDED if name not in hourly.columns]
    if missing:
        message = f"frame hourly demand, column {missing[0]}: is not in the frame"
        raise BadFrame(message, place="hourly demand", field=missing[0])
    step_s = policy.step_h * _HOUR_S
    origin = int(now.astimezone(UTC).timestamp()) // step_s
    steps = _steps(hourly, step_s, origin, policy.length)
    if steps.is_empty():
        return FORECAST.empty()
    series, values = _series(steps, policy)
    scores = back_test(forecasters(policy), values, policy.horizon, policy.season)
    combination = Combination(policy.horizon).fit(values)
    combined = score_combination(combination)
    chosen = _choose(scores, combined.mase)
    ends = _intervals(values, scores, chosen, combination, policy)
    names = [*scores, COMBINATION]
    picked = series.with_columns(
        forecaster=pl.Series([names[choice] for choice in chosen], dtype=pl.String),
        mase=_nullable(_pick([*(score.mase for score in scores.values()), combined.mase], chosen)),
        coverage_80=_nullable(_pick([*(score.coverage_80 for score in scores.values()), combined.coverage_80], chosen)),
        note=pl.Series(_notes(series, values, scores, chosen, policy), dtype=pl.String),
    )
    return _rows(picked, ends, datetime.fromtimestamp(origin * step_s, UTC), policy, now)


def _steps(hourly: pl.DataFrame, step_s: int, origin: int, length: int) -> pl.DataFrame:
    """Return the mean of each part (workspace, pool, model) and step; `place` counts up to `length`, exclusive."""
    place = pl.col("ts").dt.epoch("s").floordiv(step_s) - (origin - length)
    finite = [
        pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name)
        for name in ("running_gpus_mean", "pending_gpus_mean", "capacity_gpus_max")
    ]
    return (
        hourly.with_columns(*finite, place=place)
        .filter(pl.col("place").is_between(0, length, closed="left") & pl.col("running_gpus_mean").is_not_null())
        .sort("ts")
        .group_by("cluster", "workspace", "pool", "model", "place", maintain_order=True)
        .agg(
            pl.col("running_gpus_mean").mean().alias("running"),
            pl.col("pending_gpus_mean").mean().alias("pending"),
            pl.col("capacity_gpus_max").drop_nulls().last().alias("capacity"),
        )
        .with_columns(demand=pl.col("running") + pl.coalesce("pending", pl.lit(0.0)))  # the note says where it is null
    )


def _series(steps: pl.DataFrame, policy: ForecastPolicy) -> tuple[pl.DataFrame, Floats]:
    """Return one row a series (workspaces, then totals) and their values `[series, time]`, NaN for gaps."""
    keys = ["cluster", "workspace", "pool", "model"]
    parts = (
        steps.sort("place")
        .group_by(keys)
        .agg(
            pl.col("capacity").drop_nulls().last(),
            pl.len().alias("steps"),
            pl.col("pending").null_count().alias("steps_without_pending"),
        )
        .sort(keys)
        .with_row_index("part")
    )
    located = steps.join(parts.select(*keys, "part"), on=keys, nulls_equal=True)
    values = np.full((parts.height, policy.length), np.nan)
    values[located["part"].to_numpy(), located["place"].to_numpy()] = located["demand"].to_numpy()
    both: list[pl.DataFrame] = []
    sums: list[Floats] = []
    for group in (["cluster", "workspace"], ["cluster"]):
        members = parts.group_by(group, maintain_order=True).agg(
            pl.col("part"),
            pl.col("steps", "steps_without_pending").sum(),
            pl.when(pl.col("capacity").null_count() == 0).then(pl.col("capacity").sum()).alias("capacity_gpus"),
        )
        total = members.with_columns(pl.lit(TOTAL).alias("workspace")) if len(group) == 1 else members
        both.append(total.select("cluster", "workspace", "capacity_gpus", "steps", "steps_without_pending"))
        sums.extend(_add_up(values[rows], policy.season) for rows in members["part"].to_list())
    return pl.concat(both), np.vstack(sums)


def _add_up(parts: Floats, season: int) -> Floats:
    """Return the sum of parts at each step; NaN where a part that was there before and came back is not known.

    A part counts as there from its first value to a season after its last one: then it is gone, not missing.
    """
    known = np.isfinite(parts)
    places = np.arange(parts.shape[1])
    first = known.argmax(axis=1)[:, None]
    last = (parts.shape[1] - 1 - known[:, ::-1].argmax(axis=1))[:, None]
    is_gap = (~known & (places >= first) & (places <= last + season)).any(axis=0)
    total: Floats = np.where(known.any(axis=0) & ~is_gap, np.where(known, parts, 0.0).sum(axis=0), np.nan)
    return total


def _choose(scores: Mapping[str, Score], combined: Floats) -> Integers:
    """Return which forecaster each series takes: the combination where it beats the last value, else whatever does.

    The numbers are places in `scores`, the one behind the last stands for the combination.
    """
    errors = np.stack([score.mase for score in scores.values()])
    errors = np.where(np.isnan(errors), np.inf, errors)
    last = list(scores).index(LAST_VALUE)
    single = np.where(errors.min(axis=0) < 1.0, errors.argmin(axis=0), last)
    chosen: Integers = np.where(np.nan_to_num(combined, nan=np.inf) < 1.0, len(scores), single).astype(np.int64)
    return chosen


def _intervals(
    values: Floats, scores: Mapping[str, Score], chosen: Integers, combination: Combination, policy: ForecastPolicy
) -> dict[str, Floats]:
    quantiles = combination.predict_quantiles()
    made = [forecaster.fit(values).predict(policy.horizon) for forecaster in forecasters(policy).values()]
    median = np.maximum(_pick([*made, quantiles[..., LEVELS.size // 2]], chosen), 0.0)
    ends = {"gpus": median}
    is_combined = (chosen == len(scores))[:, None]
    for share, name, low, high in ((0.80, "80", 1, -2), (0.95, "95", 0, -1)):
        offsets = [conformal_offsets(score.residuals, share) for score in scores.values()]
        blank = np.zeros_like(median)
        lower = median + _pick([*(offset[0] for offset in offsets), blank], chosen)
        upper = median + _pick([*(offset[1] for offset in offsets), blank], chosen)
        lower = np.where(is_combined, quantiles[..., low], lower)
        upper = np.where(is_combined, quantiles[..., high], upper)
        is_known = np.isfinite(lower) & np.isfinite(upper)
        ends[f"gpus_lower_{name}"] = np.where(is_known, np.clip(lower, 0.0, median), np.nan)
        ends[f"gpus_upper_{name}"] = np.where(is_known, np.maximum(upper, median), np.nan)
    return ends


def _notes(
    series: pl.DataFrame, values: Floats, scores: Mapping[str, Score], chosen: Integers, policy: ForecastPolicy
) -> list[str | None]:
    last = list(scores).index(LAST_VALUE)
    is_scored: NDArray[np.bool_] = np.asarray(np.isfinite(scores[LAST_VALUE].residuals).any(axis=(1, 2)))
    notes: list[str | None] = []
    for place, row in enumerate(series.iter_rows(named=True)):
        said = _history_notes(np.isfinite(values[place]), policy)
        if not is_scored[place]:
            said.append("too little history for a back-test")
        elif chosen[place] == last:
            said.append("nothing beats the last value")
        unmeasured, steps = row["steps_without_pending"], row["steps"]
        if unmeasured > 0:
            said.append(f"waiting GPUs not measured in {unmeasured} of {steps} steps: running only there")
        notes.append("; ".join(said) if said else None)
    return notes


def _history_notes(known: NDArray[np.bool_], policy: ForecastPolicy) -> list[str]:
    if not known.any():
        return ["no step is known for all its parts"]
    said = []
    history_h = int(known.size - known.argmax()) * policy.step_h
    if history_h < policy.history_min_days * 24:
        said.append(f"history under {_span(policy.history_min_days)}: {history_h / 24:.1f} days")
    unknown_h = int(known[::-1].argmax()) * policy.step_h
    if unknown_h > 0:
        said.append(f"the last {unknown_h} h are not known")
    return said


def _span(days: int) -> str:
    return "two weeks" if days == 14 else f"{days} days"  # noqa: PLR2004 - two weeks are fourteen days


def _rows(
    picked: pl.DataFrame, ends: Mapping[str, Floats], start: datetime, policy: ForecastPolicy, now: datetime
) -> pl.DataFrame:
    times = [start + timedelta(hours=policy.step_h * step) for step in range(policy.horizon)]
    rows = picked.select("cluster", "workspace", "forecaster", "capacity_gpus", "mase", "coverage_80", "note")
    hours = pl.DataFrame({"ts": pl.Series(times, dtype=UTC_MICROSECONDS)})
    grid = rows.join(hours, how="cross", maintain_order="left_right")
    numbers = {name: _nullable(array.reshape(-1)) for name, array in ends.items()}
    made_at = pl.lit(now.astimezone(UTC), dtype=UTC_MICROSECONDS)
    return conform(grid.with_columns(made_at=made_at, **numbers), FORECAST, "stored")


def _pick(arrays: list[Floats], chosen: Integers) -> Floats:
    picked: Floats = np.stack(arrays)[chosen, np.arange(chosen.size)]
    return picked


def _nullable(array: Floats) -> pl.Series:
    return pl.Series(np.where(np.isfinite(array), array, np.nan), nan_to_null=True)
