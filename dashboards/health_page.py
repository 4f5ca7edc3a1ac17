"""Which GPUs fail, why, and what to do: states, verdicts, drivers' words, repairs on trial, risk."""

from datetime import timedelta

import polars as pl
import streamlit as st
from streamlit.column_config import DatetimeColumn, NumberColumn

from dashboards import health_explain as why
from dashboards import words
from dashboards.cards import draw_heading, draw_number
from dashboards.findings_section import draw_verdicts
from dashboards.health_charts import event_timeline, fleet_map
from dashboards.health_questions import (
    STATES,
    find_events,
    find_probation,
    find_risk,
    find_states,
    find_unhealthy,
)
from dashboards.port import Desk, current
from dashboards.scope import Scope, clusters, find_scope
from fleet.errors import StewardError

_WINDOWS = {"24h": timedelta(hours=24), "7d": timedelta(days=7), "30d": timedelta(days=30)}
_ALL = "all"
_NODES_SHOWN = 400
_POINTS_SHOWN = 2000
_RISKS_SHOWN = 15


def draw() -> None:
    """Draw the filters and, below them, the answers; what our own rooms can't do is told in their words."""
    try:
        with current() as desk:
            window, cluster = _draw_filters(clusters(desk.engine))
            scope = find_scope(desk.engine, _WINDOWS[window], cluster)
            if scope is None or scope.turn is None:
                st.info("Not analysed yet: `steward analyse` judges what was collected.", icon=":material/hourglass:")
                return
            st.caption(f"As of **{words.moment(scope.turn)}** · events from {words.moment(scope.since)}")
            _draw_answers(desk, scope)
    except StewardError as error:
        st.error(str(error), icon=":material/error:")


def _draw_filters(names: list[str]) -> tuple[str, str | None]:
    title, window, cluster = st.columns([4, 3, 2], vertical_alignment="bottom")
    title.title("Health", anchor=False)
    looked_back = window.segmented_control(
        "Window", list(_WINDOWS), default="7d", required=True, key="window", bind="query-params"
    )
    chosen = cluster.selectbox(
        "Cluster",
        [_ALL, *names],
        format_func=lambda name: "All clusters" if name == _ALL else name,
        key="cluster",
        bind="query-params",
    )
    return looked_back, None if chosen == _ALL else chosen


def _draw_answers(desk: Desk, scope: Scope) -> None:
    states = find_states(desk.engine, scope)
    _draw_counts(states)
    draw_heading("What to look at", why.UNHEALTHY)
    nothing = "Unknown: no telemetry to judge by." if _is_dark(states) else "The latest turn found nothing."
    draw_verdicts(find_unhealthy(desk.engine, scope), "health", why.UNHEALTHY, nothing)
    left, right = st.columns(2)
    with left:
        _draw_map(states)
    with right:
        _draw_timeline(desk, scope)
    left, right = st.columns(2)
    with left:
        _draw_probation(find_probation(desk.engine, scope))
    with right:
        _draw_risk(desk, scope)


def _is_dark(states: pl.DataFrame) -> bool:
    return states.filter(pl.col("state") != "unknown").is_empty()


def _draw_counts(states: pl.DataFrame) -> None:
    total = states.height
    with st.grid(len(STATES), gap="small", min_column_width=130):
        for state in STATES:
            number = states.filter(pl.col("state") == state).height
            draw_number(state.capitalize(), words.count(number), words.share(number, total) + " of GPUs", why.STATE)


def _draw_map(states: pl.DataFrame) -> None:
    draw_heading("Every GPU", why.MAP)
    if states.is_empty():
        st.caption("No GPU was seen in this window.")
        return
    nodes = states.select("cluster", "node").n_unique()
    if nodes > _NODES_SHOWN:
        st.caption(f"{_NODES_SHOWN} of {words.count(nodes)} nodes, those with the worst GPUs.")
    st.echarts_chart(fleet_map(states, _NODES_SHOWN), height=280)


def _draw_timeline(desk: Desk, scope: Scope) -> None:
    draw_heading("What drivers and nodes said", why.TIMELINE)
    events = find_events(desk.engine, scope, _POINTS_SHOWN)
    if events.is_empty():
        st.caption("No event was recorded in this window.")
        return
    st.echarts_chart(event_timeline(events), height=max(280, 24 * events.get_column("name").n_unique() + 60))


def _draw_probation(probation: pl.DataFrame) -> None:
    draw_heading(f"On probation after a repair ({probation.height})", why.PROBATION)
    if probation.is_empty():
        st.caption("No repair is on trial.")
        return
    st.dataframe(
        probation,
        column_config={
            "uuid": "GPU", "node": "Node", "after": "After", "repair": "Repaired by",
            "since": DatetimeColumn("Since (UTC)", format="D MMM HH:mm", timezone="UTC"),
            "until": DatetimeColumn("Until (UTC)", format="D MMM HH:mm", timezone="UTC"),
            "risk_7d": NumberColumn("Risk, 7 d", format="percent"),
            "base_7d": NumberColumn("Base", format="percent"),
        },
        hide_index=True, placeholder="-",
    )  # fmt: skip


def _draw_risk(desk: Desk, scope: Scope) -> None:
    draw_heading("Likeliest to fail", why.RISK)
    of_gpus, of_nodes = st.tabs(["GPUs", "Nodes"])
    for tab, kind in ((of_gpus, "gpu"), (of_nodes, "node")):
        with tab:
            _draw_risks(find_risk(desk.engine, scope, kind, _RISKS_SHOWN))


def _draw_risks(risks: pl.DataFrame) -> None:
    if risks.is_empty():
        st.caption("Unknown: not analysed yet.")
        return
    line, basis = risks["alert_line"][0], str(risks["basis"][0])
    told = "no line keeps to the budget of false alarms" if line is None else f"alarm from {words.percent(line)} on"
    st.caption(words.in_markdown(f"By {basis}; {told}."))
    st.dataframe(
        risks.select(
            "subject", "node", "risk_1d", "risk_7d", "risk_30d", "base_7d", "base_30d", "fault_count", "last_fault_at"
        ),
        column_config={
            "subject": "Subject", "node": "Node", "fault_count": "Faults",
            **{f"risk_{days}d": NumberColumn(f"{days} d", format="percent") for days in (1, 7, 30)},
            **{f"base_{days}d": NumberColumn(f"Base, {days} d", format="percent") for days in (7, 30)},
            "last_fault_at": DatetimeColumn("Last fault (UTC)", format="D MMM HH:mm", timezone="UTC"),
        },
        hide_index=True, placeholder="-",
    )  # fmt: skip


draw()
