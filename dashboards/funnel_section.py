"""Where the GPU-hours of the window went: from all there were down to those that were busy."""

import polars as pl
import streamlit as st

from analytics.utilisation import LOSSES, STEPS
from dashboards import use_charts, use_explain
from dashboards.cards import draw_heading
from dashboards.port import Desk
from dashboards.scope import Scope
from dashboards.use_questions import find_hours_funnel

_HOUR = 3600.0
_HEIGHT = 280
_STEP_NAMES = {
    "total": "In the fleet", "healthy": "Healthy", "usable": "Whole", "allocated": "Held", "known": "Measured",
    "active": "Active", "effective": "Effective",
}  # fmt: skip
_LOSS_NAMES = {
    "unhealthy": "unhealthy", "fragmented": "fragmented", "unallocated": "not held", "unknown": "unknown",
    "allocated_idle": "held, idle", "partly_used": "partly used",
}  # fmt: skip
_BY = ("workspace", "pool", "model", "cluster", "workload")


def draw_hours_funnel(desk: Desk, scope: Scope) -> None:
    """Draw the funnel in GPU-hours, and beside it the same by workspace, pool, model, cluster or workload."""
    draw_heading("Where the GPU-hours went", use_explain.HOURS_FUNNEL)
    ask = find_hours_funnel(desk.engine, scope)
    whole = ask(())
    if whole.is_empty():
        st.caption("Unknown: no ledger yet. `steward analyse` writes it once it is known who held which GPU.")
        return
    row = whole.row(0, named=True)
    steps = [(_STEP_NAMES[name], _hours(row[f"{name}_gpu_seconds"])) for name in STEPS]
    losses = [(_LOSS_NAMES[name], _hours(row[f"{name}_gpu_seconds"])) for name in LOSSES]
    left, right = st.columns([3, 4], gap="medium")
    with left:
        chart = use_charts.hours_funnel(steps, losses)
        st.echarts_chart(chart, height=_HEIGHT, alt="GPU-hours from the whole fleet down to effective ones")
    with right:
        by = st.segmented_control("By", _BY, default="workspace", required=True, key="funnel_by")
        _draw_parts(ask((str(by),)), str(by))


def _draw_parts(parts: pl.DataFrame, by: str) -> None:
    shown = parts.sort("total_gpu_seconds", by, descending=[True, False], nulls_last=True).select(
        pl.col(by).fill_null("nobody"),
        *((pl.col(f"{name}_gpu_seconds") / _HOUR).alias(name) for name in ("total", *LOSSES, "effective")),
        pl.col("active_share") * 100,
    )
    hours = {name: st.column_config.NumberColumn(title, format="%,.0f") for name, title in _LOSS_NAMES.items()}
    st.dataframe(
        shown,
        column_config={
            by: by.capitalize(),
            "total": st.column_config.NumberColumn("GPU-hours", format="%,.0f"),
            **hours,
            "effective": st.column_config.NumberColumn("effective", format="%,.0f"),
            "active_share": st.column_config.ProgressColumn("active", format="%.0f %%", min_value=0, max_value=100),
        },
        hide_index=True,
        placeholder="-",
        height=_HEIGHT - 60,
        alt=f"GPU-hours by {by} and what became of them",
    )


def _hours(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / _HOUR
