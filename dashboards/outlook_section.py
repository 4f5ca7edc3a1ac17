"""What comes next: demand against capacity with its forecast, and what would be done."""

import polars as pl
import streamlit as st
from streamlit.column_config import NumberColumn

from dashboards import charts, explain, words
from dashboards.cards import draw_heading
from dashboards.demand_questions import find_demand, find_forecast, find_workspaces
from dashboards.plan_questions import find_plan
from dashboards.port import Desk
from dashboards.scope import Scope

_ALL = "all"
_ROWS_WITHOUT_SCROLLING = 12
_HEIGHT = 440
# Parts of a GPU are sevenths: two decimals tell them apart.
_GPUS = NumberColumn("GPUs", format="%.3g")


def draw_demand(desk: Desk, scope: Scope) -> None:
    """Draw demand under capacity, with the forecast, of one workspace or of all."""
    left, right = st.columns([8, 2], vertical_alignment="bottom")
    with left:
        draw_heading("Demand and capacity", explain.DEMAND)
    names = find_workspaces(desk.engine, scope)
    if not names:
        st.caption("No queue has told of its demand in this window.")
        return
    chosen = right.selectbox(
        "Workspace",
        [_ALL, *names],
        format_func=lambda name: "All workspaces" if name == _ALL else name,
        key="workspace",
        bind="query-params",
        label_visibility="collapsed",
    )
    workspace = None if chosen == _ALL else chosen
    forecast = find_forecast(desk.engine, scope, workspace)
    history = find_demand(desk.engine, scope, workspace)
    st.echarts_chart(charts.demand(history, forecast), height=320, alt="GPUs wanted, capacity and forecast")
    st.caption(_forecast_words(forecast))


def _forecast_words(forecast: pl.DataFrame) -> str:
    if forecast.is_empty():
        return "No forecast of this series yet: `steward analyse` makes it once there is enough history."
    first = forecast.row(0, named=True)
    parts = [f"Forecast by {words.plain(first['forecaster'])}"]
    if first["mase"] is not None:
        parts.append(f"its back-test error is {first['mase']:.2f} of that of the last value (below 1 is better)")
    if first["coverage_80"] is not None:
        parts.append(f"{words.percent(first['coverage_80'])} of back-test points fell inside the 80 % band")
    if first["note"] is not None:
        parts.append(str(first["note"]))
    return words.in_markdown("; ".join(parts) + ".")


def draw_plan(desk: Desk, scope: Scope) -> None:
    """Draw the plan made last, and what it leaves alone on purpose."""
    draw_heading("What would be done", explain.MOVES)
    planned = find_plan(desk.engine, scope)
    if planned is None:
        st.caption("No plan yet: `steward plan` makes one and changes nothing.")
        return
    st.caption(f"Planned {words.moment(planned.made_at)}. A plan changes nothing until it is applied.")
    if not planned.moves.is_empty():
        _draw_moves(planned.moves)
    if not planned.held_back.is_empty():
        with st.expander(f"Left alone on purpose ({planned.held_back.height})", icon=":material/shield:"):
            st.dataframe(
                planned.held_back.with_columns(pl.col("action").str.replace_all("_", " ")),
                column_config={"subject": "Subject", "action": "Called for", "gpus": _GPUS, "reason": "Why not"},
                hide_index=True,
            )


def _draw_moves(moves: pl.DataFrame) -> None:
    st.dataframe(
        moves.with_columns(pl.col("kind").str.replace_all("_", " "), pl.col("saving_usd_per_hour").cast(pl.Float64)),
        column_order=["kind", "target", "workspace", "gpus", "saving_usd_per_hour", "reason", "stage", "cluster"],
        column_config={
            "kind": "Move",
            "target": "Target",
            "workspace": "Workspace",
            "gpus": _GPUS,
            "saving_usd_per_hour": NumberColumn("Saves an hour", format="dollar"),
            "reason": st.column_config.TextColumn("Why", width="large"),
            "stage": "Stage",
            "cluster": "Cluster",
        },
        hide_index=True,
        placeholder="-",
        height="content" if moves.height <= _ROWS_WITHOUT_SCROLLING else _HEIGHT,
        alt="Moves in the order they would be made",
    )
