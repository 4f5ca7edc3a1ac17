"""How wrong each forecaster was, of each series: rows of `forecast_score`, and what they are still good for."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from analytics.backtest import LAST_VALUE, Floats, Integers, Score, back_test, choose_origins, conformal_offsets
from analytics.combination import Combination, score_combination
from analytics.forecast_policy import ForecastPolicy, forecasters
from analytics.forecast_series import KEYS, Panel
from analytics.trials import STRETCHED
from fleet.frames import UTC_MICROSECONDS, conform
from fleet.tables import FORECAST_SCORE

COMBINATION = "combination"
KEPT_FOR = timedelta(days=1)
_MEASURES = ("mase", "mase_seasonal", "mae_gpus", "wql", "coverage_80", "coverage_95", "hour_count")


@dataclass(frozen=True, slots=True)
class Standing:
    """Scores `[forecaster, sum]` in the order of `names`, NaN = could not be told; `stretch` as in `STRETCHED`.

    `mase` is the error over the last value's at the same hours (below 1 is better), `mase_seasonal` over the seasonal
    naive's, `mae` the error in GPUs, `points` the hours scored.
    """

    names: tuple[str, ...]
    mase: Floats
    mase_seasonal: Floats
    mae: Floats
    wql: Floats
    coverage_80: Floats
    coverage_95: Floats
    points: Floats
    stretch: Floats

    def choose(self) -> Integers:
        """Return who forecasts each sum: the combination where it beats the last value, else whatever does."""
        errors = np.where(np.isnan(self.mase), np.inf, self.mase)
        singles, combined = errors[:-1], errors[-1]
        last = self.names.index(LAST_VALUE)
        single = np.where(singles.min(axis=0) < 1.0, singles.argmin(axis=0), last)
        chosen: Integers = np.where(combined < 1.0, len(self.names) - 1, single).astype(np.int64)
        return chosen


def judge_forecasters(values: Floats, policy: ForecastPolicy, combination: Combination) -> Standing:
    """Score all forecasters on `[sum, time]`; the combination is fitted on the way.

    Plain forecasters are scored at up to 200 rolling origins, the combination at ten of the last third.
    """
    scores = back_test(forecasters(policy), values, policy.horizon, policy.season)
    combined = score_combination(combination.fit(values))
    origins = choose_origins(values.shape[1], policy.horizon, 2 * policy.season, policy.season)
    known = {name: np.isfinite(score.residuals) for name, score in scores.items()}
    points = [each.sum(axis=(1, 2)).astype(np.float64) for each in known.values()]
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = [
            np.where(known[name], np.abs(score.residuals), 0.0).sum(axis=(1, 2)) / count
            for (name, score), count in zip(scores.items(), points, strict=True)
        ]
    singles = list(scores.values())
    return Standing(
        (*scores, COMBINATION),
        np.stack([*(each.mase for each in singles), combined.mase]),
        np.stack([*(each.mase_seasonal for each in singles), combined.mase_seasonal]),
        np.stack([*errors, combined.mae]),
        np.stack([*(_quantile_loss(each, values, origins) for each in singles), combined.wql]),
        np.stack([*(each.coverage_80 for each in singles), combined.coverage_80]),
        np.stack([*(each.coverage_95 for each in singles), combined.coverage_95]),
        np.stack([*points, combined.points.astype(np.float64)]),
        combination.stretch_,
    )


def _quantile_loss(score: Score, values: Floats, origins: Integers) -> Floats:
    """Return the weighted quantile loss (0.1, 0.5, 0.9) of the later half, with ends from the earlier half."""
    residuals, half = score.residuals, origins.size // 2
    if half == 0:
        return np.full(values.shape[0], np.nan)
    horizon = residuals.shape[2]
    known_by = origins[:half, None] + np.arange(horizon)[None] < origins[half]
    low, high = conformal_offsets(np.where(known_by[None], residuals[:, :half], np.nan), 0.80)
    later = residuals[:, half:]
    actual = values[:, origins[half:, None] + np.arange(horizon)[None]]
    is_scored = np.isfinite(later) & np.isfinite(low)[:, None] & np.isfinite(high)[:, None]
    lost = np.zeros(values.shape[0])
    for level, offset in ((0.1, low), (0.5, np.zeros_like(low)), (0.9, high)):
        miss = np.where(is_scored, later - np.where(np.isfinite(offset), offset, 0.0)[:, None], 0.0)
        lost += np.maximum(level * miss, (level - 1.0) * miss).sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        loss: Floats = 2.0 * lost / 3.0 / np.where(is_scored, np.abs(actual), 0.0).sum(axis=(1, 2))
    return np.where(np.isfinite(loss), loss, np.nan)


def score_rows(
    panel: Panel, standing: Standing, chosen: Integers, policy: ForecastPolicy, now: datetime
) -> pl.DataFrame:
    """Return the scores as rows of `forecast_score`, one for each series and forecaster."""
    arrays = (
        standing.mase, standing.mase_seasonal, standing.mae, standing.wql, standing.coverage_80,
        standing.coverage_95, standing.points,
    )  # fmt: skip
    keys = panel.series.select(KEYS)
    stretch = dict(zip(STRETCHED, standing.stretch.tolist(), strict=True))
    parts = []
    for number, name in enumerate(standing.names):
        numbers = {
            measure: pl.Series(np.where(np.isfinite(row), row, np.nan)[panel.place], nan_to_null=True)
            for measure, row in zip(_MEASURES, (array[number] for array in arrays), strict=True)
        }
        is_ours = name == COMBINATION
        parts.append(
            keys.with_columns(
                pl.lit(name).alias("forecaster"),
                pl.Series("is_used", chosen[panel.place] == number),
                *(pl.lit(value if is_ours else None, pl.Float64).alias(key) for key, value in stretch.items()),
                **numbers,
            )
        )
    rows = pl.concat(parts).with_columns(
        pl.lit(now.astimezone(UTC), dtype=UTC_MICROSECONDS).alias("made_at"),
        pl.lit(policy.horizon_h, dtype=pl.Int32).alias("horizon_hours"),
    )
    return conform(rows, FORECAST_SCORE, "stored")


def recall(scores: pl.DataFrame, panel: Panel, policy: ForecastPolicy, now: datetime) -> Standing | None:
    """Return what stored scores say of just these series; None where they are older than a day or of others."""
    recent = scores.filter(
        pl.col("horizon_hours") == policy.horizon_h, pl.col("made_at") <= now, pl.col("made_at") > now - KEPT_FOR
    )
    recent = recent.filter(pl.col("made_at") == pl.col("made_at").max())
    names = (*forecasters(policy), COMBINATION)
    keys = panel.series.select(KEYS).with_columns(pl.Series("sum", panel.place))
    joined = keys.join(recent, on=list(KEYS), how="left", nulls_equal=True)
    sums = len(panel.members)
    if recent.height != keys.height * len(names) or joined["forecaster"].null_count() > 0:
        return None
    if np.unique(panel.place).size != sums or set(joined["forecaster"]) != set(names):
        return None
    arrays = {measure: np.full((len(names), sums), np.nan) for measure in _MEASURES}
    for number, name in enumerate(names):
        mine = joined.filter(pl.col("forecaster") == name)
        for measure, array in arrays.items():
            array[number, mine["sum"].to_numpy()] = mine[measure].cast(pl.Float64).to_numpy()
    stretch = joined.filter(pl.col("forecaster") == COMBINATION).select(STRETCHED).row(0)
    points = np.nan_to_num(arrays.pop("hour_count"))
    if not points.any():
        return None
    return Standing(
        names, arrays["mase"], arrays["mase_seasonal"], arrays["mae_gpus"], arrays["wql"], arrays["coverage_80"],
        arrays["coverage_95"], points, np.array(stretch, dtype=np.float64),
    )  # fmt: skip
