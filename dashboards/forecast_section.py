"""How far a forecast can be trusted, and when demand passes what there is."""

import polars as pl
import streamlit as st
from streamlit.column_config import DatetimeColumn, NumberColumn, ProgressColumn

from dashboards import words
from dashboards.cards import draw_heading
from dashboards.explain import Explanation

_COVERAGES = ("coverage_80", "coverage_95")
SCORES = Explanation(
    "table `forecast_score`, the latest, of this series",
    "every forecaster is tried at earlier moments with what was known then; one that does not beat the last value is "
    "not used",
    "error = mean absolute error of the median; against the last value and against the same hour of the day before, "
    "below 1 is better; wQL = weighted quantile loss of 0.1, 0.5, 0.9; coverage = share of hours inside the band",
)
EXHAUSTION = Explanation(
    "table `exhaustion`, the latest",
    "the highest hour of the window is forecast itself, from what followed moments like this one",
    "share of the peaks drawn that lie above the limit: a quota, or the capacity that the queues tell of",
)


def draw_scores(scores: pl.DataFrame) -> None:
    """Draw how wrong each forecaster of a series was."""
    draw_heading("How wrong such forecasts were", SCORES)
    if scores.is_empty():
        st.caption("Not scored yet: `steward analyse` scores what it forecasts, once a day.")
        return
    used = scores.filter("is_used")
    if not used.is_empty():
        row = used.row(0, named=True)
        told = "can't be told yet" if row["mase"] is None else f"{row['mase']:.2f} of the last value's"
        st.caption(words.in_markdown(f"Used: {words.plain(row['forecaster'])}; its error is {told}."))
    st.dataframe(
        scores.with_columns(pl.col("forecaster").str.replace_all("_", " ")),
        column_order=("forecaster", "is_used", "mae_gpus", "mase", "mase_seasonal", "wql", *_COVERAGES),
        column_config={
            "forecaster": "Forecaster", "is_used": "Used", "mae_gpus": NumberColumn("Error, GPUs", format="%.2f"),
            "mase": NumberColumn("Against last value", format="%.2f"),
            "mase_seasonal": NumberColumn("Against day before", format="%.2f"),
            "wql": NumberColumn("wQL", format="%.3f"), "coverage_80": NumberColumn("In 80 % band", format="percent"),
            "coverage_95": NumberColumn("In 95 % band", format="percent"),
        },
        hide_index=True, placeholder="unknown", alt="Scores of forecasters",
    )  # fmt: skip


def draw_exhaustion(odds: pl.DataFrame) -> None:
    """Draw how likely each quota and each pool is passed within 1, 7 and 30 days."""
    draw_heading("When it runs out", EXHAUSTION)
    if odds.is_empty():
        st.caption("Unknown: no series has a quota or a known capacity, or none was judged yet.")
        return
    keys = ["cluster", "workspace", "pool", "model"]
    wide = odds.group_by([*keys, "limit_kind", "limit_gpus", "earliest_at", "likely_at"], maintain_order=True).agg(
        *(
            pl.col("probability").filter(pl.col("window_hours") == hours).first().alias(f"within {hours // 24} d")
            for hours in sorted(odds["window_hours"].unique())
        ),
        pl.col("peak_gpus").max(),
    )
    chances = [name for name in wide.columns if name.startswith("within")]
    wide = wide.sort(chances[min(1, len(chances) - 1)], descending=True, nulls_last=True)
    st.dataframe(
        wide,
        column_order=[*keys, "limit_kind", "limit_gpus", "peak_gpus", *chances, "earliest_at", "likely_at"],
        column_config={
            "cluster": "Cluster", "workspace": "Workspace", "pool": "Pool", "model": "Model", "limit_kind": "Limit",
            "limit_gpus": NumberColumn("GPUs", format="%.0f"),
            "peak_gpus": NumberColumn("Median peak, 30 d", format="%.0f"),
            **{name: ProgressColumn(name, format="percent", min_value=0, max_value=1) for name in chances},
            "earliest_at": DatetimeColumn("1 in 10 by", format="D MMM YYYY"),
            "likely_at": DatetimeColumn("Even odds by", format="D MMM YYYY"),
        },
        hide_index=True, placeholder="-", alt="Odds that limits are passed",
    )  # fmt: skip
