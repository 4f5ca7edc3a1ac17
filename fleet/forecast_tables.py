"""How good forecasts were, and how likely demand is to pass what there is."""

from fleet.columns import EXACT, FLAG, SMALL, TEXT, TIME, needed
from fleet.frames import Column, Table

_SERIES = (
    needed("made_at", TIME, "the `now` of the forecast"),
    needed("cluster", TEXT, "series: cluster, or * for all"),
    needed("workspace", TEXT, "series: workspace, or * for all"),
    Column("pool", TEXT, "series: node pool, null = all"),
    Column("model", TEXT, "series: GPU model, null = all"),
)

FORECAST_SCORE = Table(
    "forecast_score",
    "How wrong each forecaster was of each series, at earlier origins.",
    (
        *_SERIES,
        needed("horizon_hours", SMALL, "hours forecast from each origin"),
        needed("forecaster", TEXT, "who forecast"),
        needed("is_used", FLAG, "the forecasts of this series are its"),
        Column("mase", EXACT, "error over that of the last value (below 1 is better)"),
        Column("mase_seasonal", EXACT, "error over that of the seasonal naive of 24 hours"),
        Column("mae_gpus", EXACT, "mean absolute error of the median"),
        Column("wql", EXACT, "weighted quantile loss of 0.1, 0.5 and 0.9 over the mean demand"),
        Column("coverage_80", EXACT, "share of points inside the 80 % interval"),
        Column("coverage_95", EXACT, "share of points inside the 95 % interval"),
        Column("hour_count", EXACT, "hours that were scored"),
        Column("stretch_95", EXACT, "factor the widths were corrected by, 95 % interval"),
        Column("stretch_80", EXACT, "the same, 80 % interval"),
        Column("stretch_50", EXACT, "the same, 50 % interval"),
    ),
    key=("made_at", "cluster", "workspace", "pool", "model", "horizon_hours", "forecaster"),
    time="made_at",
    on_conflict="keep",
)

EXHAUSTION = Table(
    "exhaustion",
    "How likely demand is to pass a quota or what there is, within a window from `made_at` on.",
    (
        *_SERIES,
        needed("window_hours", SMALL, "the window, from made_at on"),
        needed("limit_kind", TEXT, "quota or capacity"),
        needed("limit_gpus", EXACT, "GPUs it may have, or that there are"),
        Column("probability", EXACT, "0..1 that the window's highest hour is above the limit; null = unknown"),
        Column("peak_gpus", EXACT, "median of the window's highest hour"),
        Column("peak_gpus_upper_80", EXACT, "90 % quantile of the window's highest hour"),
        Column("earliest_at", TIME, "by then it has happened with a probability of one in ten; null: not in 30 days"),
        Column("likely_at", TIME, "by then it has happened with even odds; null: not in 30 days"),
        Column("note", TEXT, "why it should be trusted less, where it should"),
    ),
    key=("made_at", "cluster", "workspace", "pool", "model", "window_hours"),
    time="made_at",
    on_conflict="keep",
)
