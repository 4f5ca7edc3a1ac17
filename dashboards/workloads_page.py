"""Who uses what they hold: what idles, what stalls, what is too large, and what another line would catch."""

from datetime import timedelta

import polars as pl
import streamlit as st
from streamlit.column_config import DatetimeColumn, NumberColumn

from dashboards import use_charts, use_explain, words
from dashboards.cards import draw_heading, draw_number
from dashboards.port import Desk, current
from dashboards.scope import Scope, clusters, find_scope
from dashboards.sharing_section import draw_sharing
from dashboards.use_questions import Caught, by_state, find_caught, find_fits, find_heat
from fleet.errors import StewardError
from fleet.verdict import Verdict

_WINDOWS = {"24h": timedelta(hours=24), "3d": timedelta(days=3), "7d": timedelta(days=7)}
_ALL = "all"
_DEFAULT = 5
_LINES = (1, 2, 3, 5, 8, 10, 15, 20, 30, 50)
_TABS = {
    "zombie": "Zombies", "idle_held": "Idle, memory held", "idle": "Idle", "stalled": "Stalled",
    "under_used": "Under-used", "bursty": "Bursty", "unknown": "Unknown",
}  # fmt: skip
_NOTHING = {
    "zombie": "Nothing idles for more than a day.",
    "stalled": "Nothing spins without work.",
    "unknown": "Of everything that is held enough is known.",
}
_HEIGHT = 340


def draw() -> None:
    """Draw the filters and what is found; what our own rooms can't do is told in their words."""
    try:
        with current() as desk:
            names = clusters(desk.engine)
            window, cluster = _draw_filters(names)
            scope = find_scope(desk.engine, _WINDOWS[window], cluster)
            if scope is None:
                st.info("Nothing collected yet; the overview tells how to begin.", icon=":material/hourglass_empty:")
                return
            st.caption(f"As of **{words.moment(scope.until)}**")
            caught = _draw_slider(desk, scope)
            _draw_states(caught, scope)
            _draw_heat(desk, scope)
            _draw_fits(desk, scope)
            draw_sharing(desk, scope)
    except StewardError as error:
        st.error(str(error), icon=":material/error:")


def _draw_filters(names: list[str]) -> tuple[str, str | None]:
    title, window, cluster = st.columns([4, 3, 2], vertical_alignment="bottom")
    title.title("Workloads", anchor=False)
    chosen = window.segmented_control(
        "Window", list(_WINDOWS), default="24h", required=True, key="workloads_window", bind="query-params"
    )
    where = cluster.selectbox(
        "Cluster",
        [_ALL, *names],
        format_func=lambda name: "All clusters" if name == _ALL else name,
        key="workloads_cluster",
        bind="query-params",
    )
    return chosen, None if where == _ALL else where


def _draw_slider(desk: Desk, scope: Scope) -> Caught:
    """Draw the line between idle and active, and what it catches beside what the usual line does."""
    line = st.select_slider(
        "A sample is active above",
        _LINES,
        value=_DEFAULT,
        format_func=lambda percent: f"{percent} %",
        key="line",
        help=use_explain.CAUGHT.markdown(),
    )
    caught = find_caught(desk.engine, scope, line / 100)
    usual = caught if line == _DEFAULT else find_caught(desk.engine, scope, _DEFAULT / 100)
    with st.grid(4, gap="small"):
        draw_number(
            "GPUs and slices caught",
            words.count(caught.devices),
            _than_usual(caught.devices - usual.devices, line),
            use_explain.CAUGHT,
        )
        draw_number("Idle so far", f"{caught.gpu_hours:,.1f} GPU-h", "since each went idle", use_explain.CAUGHT)
        money = words.UNPRICED if caught.cost_usd is None else f"${caught.cost_usd:,.2f}"
        draw_number("Cost of it so far", money, "where there is a price", use_explain.CAUGHT)
        draw_number("Unknown", words.count(caught.unknown), "never called idle", use_explain.CAUGHT)
    return caught


def _than_usual(more: int, line: int) -> str:
    if line == _DEFAULT:
        return "by the usual line"
    return f"{abs(more):,} {'more' if more >= 0 else 'fewer'} than at {_DEFAULT} %"


def _draw_states(caught: Caught, scope: Scope) -> None:
    draw_heading("What is held and how it is used", use_explain.STATES)
    found = by_state(caught, scope)
    labels = {state: f"{title} ({len(found[state])})" for state, title in _TABS.items()}
    first = next((state for state in _TABS if found[state]), "zombie")
    tabs = st.tabs(list(labels.values()), default=labels[first])
    for tab, state in zip(tabs, _TABS, strict=True):
        with tab:
            _draw_verdicts(found[state], state)


def _draw_verdicts(verdicts: list[Verdict], state: str) -> None:
    if not verdicts:
        st.caption(_NOTHING.get(state, "None at this line."))
        return
    rows = [
        {
            "workload": verdict.subject,
            "workspace": verdict.workspace,
            "owner": verdict.evidence.get("owner"),
            "because": words.plain(verdict.rule),
            "do": words.plain(verdict.action or "none"),
            "parts": f"{verdict.evidence.get('idle_count')} of {verdict.evidence.get('part_count')}",
            "since": verdict.since,
            "gpu_hours": verdict.gpu_hours,
            "cost_usd": None if verdict.cost_usd is None else float(verdict.cost_usd),
        }
        for verdict in verdicts
    ]
    st.dataframe(
        pl.DataFrame(rows, infer_schema_length=None),
        column_config={
            "workload": "Workload",
            "workspace": "Workspace",
            "owner": "Owner",
            "because": "Because",
            "do": "Do",
            "parts": "Idle parts",
            "since": DatetimeColumn("Since (UTC)", format="D MMM HH:mm", timezone="UTC"),
            "gpu_hours": NumberColumn("GPU-hours", format="%,.1f"),
            "cost_usd": NumberColumn("So far", format="dollar"),
        },
        hide_index=True,
        placeholder="-",
        height="content" if len(rows) <= 8 else _HEIGHT,  # noqa: PLR2004 - what fits without scrolling
        key=f"{state}_table",
        alt=f"Workloads that are {words.plain(state)}",
    )


def _draw_heat(desk: Desk, scope: Scope) -> None:
    draw_heading("Activity by node and hour", use_explain.HEAT)
    cells = find_heat(desk.engine, scope)
    if cells.is_empty():
        st.caption("Unknown: no telemetry in this window.")
        return
    height = 120 + 22 * cells["node"].n_unique()
    st.echarts_chart(use_charts.heat(cells), height=height, alt="Mean activity of each node by hour")


def _draw_fits(desk: Desk, scope: Scope) -> None:
    draw_heading("Which gangs fit now", use_explain.FITS)
    fits = find_fits(desk.engine, scope)
    if fits.is_empty():
        st.caption("Unknown: no GPU is known of that takes pods.")
        return
    st.dataframe(
        fits,
        column_config={
            "cluster": "Cluster", "pool": "Pool", "model": "Model", "size": "GPUs a pod", "gpus": "GPUs",
            "free_gpus": "Free", "fits": "Fit now", "fits_packed": "Would fit packed", "stranded_gpus": "Stranded",
        },
        hide_index=True,
        placeholder="-",
        height=_HEIGHT,
        alt="How many gangs of each size fit, by pool",
    )  # fmt: skip


draw()
