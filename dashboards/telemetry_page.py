"""Can the numbers be trusted: how fresh is each source, what is missing where, what failed, what was refused?"""

from datetime import timedelta

import polars as pl
import streamlit as st
from streamlit.column_config import DatetimeColumn, NumberColumn, ProgressColumn

from dashboards import explain, words
from dashboards.cards import draw_heading, draw_number
from dashboards.port import Desk, current
from dashboards.scope import find_scope
from dashboards.telemetry_charts import coverage_heat
from dashboards.telemetry_questions import MOST_NODES, find_covered, find_gaps, find_heat, find_states
from fleet.errors import StewardError

_WINDOWS = {"24h": timedelta(hours=24), "7d": timedelta(days=7)}
_STATES = ("failing", "never_read", "late", "partial", "ok")


def draw() -> None:
    """Draw the choice of a window and, below it, what is refreshed."""
    title, window = st.columns([4, 2], vertical_alignment="bottom")
    title.title("Data quality", anchor=False)
    chosen = window.segmented_control(
        "Window", list(_WINDOWS), default="24h", required=True, key="window", bind="query-params",
        help="How far back the coverage of nodes is shown.",
    )  # fmt: skip
    _draw_answers(_WINDOWS[chosen])


@st.fragment(run_every=timedelta(seconds=30))
def _draw_answers(window: timedelta) -> None:
    try:
        with current() as desk:
            covered = find_covered(desk.engine, desk.clock.now())
            states = find_states(desk.engine, covered, desk.clock.now())
            if states.is_empty():
                st.info("No source was ever read.", icon=":material/hourglass_empty:")
                st.markdown("`steward collect --source nvml` reads this machine; `steward doctor` says what is set up.")
                return
            _draw_numbers(states)
            _draw_sources(states)
            _draw_heat(desk, window)
            _draw_gaps(find_gaps(covered), is_known=covered.get_column("ratio").is_not_null().any())
    except StewardError as error:
        st.error(str(error), icon=":material/error:")


def _draw_numbers(states: pl.DataFrame) -> None:
    well = states.filter(pl.col("state") == "ok").height
    worst = states.get_column("coverage").min()
    lag = states.get_column("lag_s").max()
    with st.grid(4, gap="small", min_column_width=150):
        draw_number("Sources well", f"{well} of {states.height}", "fresh, whole and answering", explain.SOURCE_STATE)
        draw_number(
            "Least coverage", words.percent(worst if isinstance(worst, float) else None), "of the last hour",
            explain.SOURCE_COVERAGE,
        )  # fmt: skip
        late = words.span(timedelta(seconds=lag)) if isinstance(lag, float) else words.UNKNOWN
        draw_number("Most behind", late, "since what was read", explain.SOURCE_LAG)
        lost = " / ".join(words.count(sum(states[name].to_list())) for name in ("failures", "rejected_rows"))
        draw_number("Failures / rows rejected", lost, "in the last day", explain.FAILURES)


def _draw_sources(states: pl.DataFrame) -> None:
    draw_heading("Sources", explain.SOURCE_STATE)
    order = pl.col("state").replace_strict(list(_STATES), range(len(_STATES)), return_dtype=pl.Int32)
    shown = states.sort(order, "source").with_columns(pl.col("state").str.replace_all("_", " "))
    st.dataframe(
        shown,
        column_config={
            "source": "Source",
            "state": "State",
            "lag_s": NumberColumn("Lag (s)", format="localized"),
            "coverage": ProgressColumn("Coverage", min_value=0.0, max_value=1.0, format="percent"),
            "failures": "Failures (1 d)",
            "rejected_rows": "Rows rejected (1 d)",
            "last_error": "Last error",
            "last_error_at": DatetimeColumn("Told (UTC)", timezone="UTC"),
            "hint": "What to do",
        },
        hide_index=True,
        placeholder="-",
    )


def _draw_heat(desk: Desk, window: timedelta) -> None:
    draw_heading("Coverage by node and hour", explain.COVERAGE)
    scope = find_scope(desk.engine, window, None)
    cells = None if scope is None else find_heat(desk.engine, scope)
    if cells is None or cells.is_empty():
        st.caption("Unknown: no whole hour of telemetry yet.")
        return
    nodes = cells.select("cluster", "node").unique().height
    height = 120 + 22 * nodes
    st.echarts_chart(coverage_heat(cells), height=height, alt="Coverage of each node in each hour")
    if nodes == MOST_NODES:
        st.caption(f"The {MOST_NODES} nodes with the least coverage.")


def _draw_gaps(gaps: pl.DataFrame, *, is_known: bool) -> None:
    draw_heading("Nodes with samples missing in the last hour", explain.SOURCE_COVERAGE)
    if gaps.is_empty():
        st.caption("None." if is_known else "Unknown: no source gave samples in the last hour to tell a cadence by.")
        return
    st.dataframe(
        gaps.select("source", "cluster", "node", "gpus", "samples", "expected", "ratio"),
        column_config={
            "source": "Source", "cluster": "Cluster", "node": "Node", "gpus": "GPUs", "samples": "Samples",
            "expected": NumberColumn("Expected", format="%.0f"),
            "ratio": ProgressColumn("Coverage", min_value=0.0, max_value=1.0, format="percent"),
        },
        hide_index=True,
    )  # fmt: skip


draw()
