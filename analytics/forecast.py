"""Forecast the GPUs each workspace, pool, model and cluster will want, hour by hour, with intervals and a record.

What is forecast is unconstrained demand: GPUs running plus GPUs waited for. A gap stays a gap; only a forecaster
reaches back over it to the last value known. Whatever does not beat the last value in the back-test is not used.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analytics.backtest import LAST_VALUE, Floats, Integers, choose_origins, conformal_offsets, roll
from analytics.combination import Combination, CombinationPolicy
from analytics.forecast_policy import ForecastPolicy, forecasters
from analytics.forecast_scores import Standing, judge_forecasters, recall, score_rows
from analytics.forecast_series import KEYS, Panel, make_panel
from analytics.hierarchy import reconcile
from analytics.level_shift import find_shift
from analytics.trials import LEVELS
from fleet.errors import BadFrame
from fleet.frames import UTC_MICROSECONDS, conform
from fleet.tables import FORECAST, FORECAST_SCORE

_HOUR_S = 3600
_NEEDED = ("cluster", "workspace", "pool", "model", "ts", "running_gpus_mean", "pending_gpus_mean", "capacity_gpus_max")
_ENDS = (("80", 0.80, 1, -2), ("95", 0.95, 0, -1))


@dataclass(frozen=True, slots=True)
class Refresh:
    """Rows of the tables `forecast` and `forecast_score`; no scores where earlier ones still held."""

    forecasts: pl.DataFrame
    scores: pl.DataFrame


def make_forecasts(hourly: pl.DataFrame, policy: ForecastPolicy, now: datetime) -> pl.DataFrame:
    """Forecast every series of what `hourly_demand` gives: rows of the table `forecast`, see `refresh`."""
    return refresh(hourly, policy, now).forecasts


def refresh(hourly: pl.DataFrame, policy: ForecastPolicy, now: datetime, scores: pl.DataFrame | None = None) -> Refresh:
    """Forecast workspaces, pools, models, clusters (workspace "*") and all (cluster "*") from `hourly_demand`.

    One row for each step from the clock hour of `now` on: the median is never negative and lies within its intervals,
    and medians of parts add up. GPUs are null where nothing was ever known, an interval's ends where there are too few
    residuals for it. The step in progress is not learnt from: it is the first one forecast. Rows of `forecast_score`
    that are less than a day old and of just these series spare the back-test.
    """
    panel = panel_of(hourly, policy, now)
    if panel is None:
        return Refresh(FORECAST.empty(), FORECAST_SCORE.empty())
    standing = None if scores is None else recall(scores, panel, policy, now)
    is_new = standing is None
    combination = Combination(policy.horizon, CombinationPolicy(season=policy.season))
    if standing is None:
        standing = judge_forecasters(panel.values, policy, combination)
    else:
        combination.fit(panel.values, standing.stretch)
    chosen = standing.choose()
    ends = _make_ends(panel, standing, chosen, combination, policy)
    place = panel.place
    names = np.array(standing.names)
    picked = panel.series.with_columns(
        forecaster=pl.Series(names[chosen[place]].tolist(), dtype=pl.String),
        mase=_nullable(_pick(standing.mase, chosen)[place]),
        coverage_80=_nullable(_pick(standing.coverage_80, chosen)[place]),
        note=pl.Series(_notes(panel, standing, chosen, policy), dtype=pl.String),
    )
    start = datetime.fromtimestamp(_origin(policy, now) * policy.step_h * _HOUR_S, UTC)
    rows = _rows(picked, {name: each[place] for name, each in ends.items()}, start, policy, now)
    return Refresh(rows, score_rows(panel, standing, chosen, policy, now) if is_new else FORECAST_SCORE.empty())


def panel_of(hourly: pl.DataFrame, policy: ForecastPolicy, now: datetime) -> Panel | None:
    """Return the series of what `hourly_demand` gives up to the step in progress; None where nothing is known."""
    missing = [name for name in _NEEDED if name not in hourly.columns]
    if missing:
        message = f"frame hourly demand, column {missing[0]}: is not in the frame"
        raise BadFrame(message, place="hourly demand", field=missing[0])
    steps = _steps(hourly, policy.step_h * _HOUR_S, _origin(policy, now), policy.length)
    return None if steps.is_empty() else make_panel(steps, policy.length, policy.season)


def _origin(policy: ForecastPolicy, now: datetime) -> int:
    return int(now.astimezone(UTC).timestamp()) // (policy.step_h * _HOUR_S)


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


def _make_ends(
    panel: Panel, standing: Standing, chosen: Integers, combination: Combination, policy: ForecastPolicy
) -> dict[str, Floats]:
    """Return medians that add up, and the ends of the intervals moved along with them."""
    quantiles = combination.predict_quantiles()
    median = quantiles[..., LEVELS.size // 2].copy()
    ends = {end: quantiles[..., at].copy() for name, _, low, high in _ENDS for end, at in _both(name, low, high)}
    origins = choose_origins(panel.values.shape[1], policy.horizon, 2 * policy.season, policy.season)
    for number, forecaster in enumerate(forecasters(policy).values()):
        mine = np.nonzero(chosen == number)[0]
        if mine.size == 0:
            continue
        values = panel.values[mine]
        residuals = roll(forecaster, values, policy.horizon, origins)
        median[mine] = np.maximum(forecaster.fit(values).predict(policy.horizon), 0.0)
        for name, share, _, _ in _ENDS:
            below, above = conformal_offsets(residuals, share)
            ends[f"gpus_lower_{name}"][mine] = median[mine] + below
            ends[f"gpus_upper_{name}"][mine] = median[mine] + above
    made = reconcile(median, _pick(standing.mae, chosen), panel.members, panel.is_gone)
    moved = np.nan_to_num(made - median)
    found = {"gpus": made}
    for name, _, _, _ in _ENDS:
        lower, upper = ends[f"gpus_lower_{name}"] + moved, ends[f"gpus_upper_{name}"] + moved
        is_known = np.isfinite(lower) & np.isfinite(upper) & np.isfinite(median)
        found[f"gpus_lower_{name}"] = np.where(is_known, np.clip(lower, 0.0, made), np.nan)
        found[f"gpus_upper_{name}"] = np.where(is_known, np.maximum(upper, made), np.nan)
    return found


def _both(name: str, low: int, high: int) -> tuple[tuple[str, int], tuple[str, int]]:
    return (f"gpus_lower_{name}", low), (f"gpus_upper_{name}", high)


def _notes(panel: Panel, standing: Standing, chosen: Integers, policy: ForecastPolicy) -> list[str | None]:
    last = standing.names.index(LAST_VALUE)
    shifts = [_shift_note(row, policy) for row in panel.values]
    notes: list[str | None] = []
    for place, row in zip(panel.place, panel.series.iter_rows(named=True), strict=True):
        said = _history_notes(np.isfinite(panel.values[place]), policy)
        if standing.points[last, place] == 0:
            said.append("too little history for a back-test")
        elif chosen[place] == last:
            said.append("nothing beats the last value")
        said += shifts[place]
        unmeasured, steps = row["steps_without_pending"], row["steps"]
        if unmeasured > 0:
            said.append(f"waiting GPUs not measured in {unmeasured} of {steps} steps: running only there")
        notes.append("; ".join(said) if said else None)
    return notes


def _shift_note(values: Floats, policy: ForecastPolicy) -> list[str]:
    shift = find_shift(values) if policy.step_h == 1 else None
    if shift is None:
        return []
    return [f"the level went from {shift.before:,.0f} to {shift.after:,.0f} GPUs {shift.age} h ago"]


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
    rows = picked.select(*KEYS, "forecaster", "capacity_gpus", "mase", "coverage_80", "note")
    hours = pl.DataFrame({"ts": pl.Series(times, dtype=UTC_MICROSECONDS)})
    grid = rows.join(hours, how="cross", maintain_order="left_right")
    numbers = {name: _nullable(array.reshape(-1)) for name, array in ends.items()}
    made_at = pl.lit(now.astimezone(UTC), dtype=UTC_MICROSECONDS)
    return conform(grid.with_columns(made_at=made_at, **numbers), FORECAST, "stored")


def _pick(measures: Floats, chosen: Integers) -> Floats:
    """Return, of an array with one row a forecaster, what stands for the one chosen of each sum."""
    picked: Floats = measures[chosen, np.arange(chosen.size)]
    return picked


def _nullable(array: Floats) -> pl.Series:
    return pl.Series(np.where(np.isfinite(array), array, np.nan), nan_to_null=True)
