"""How is the fleet: how much is there, does it work, is it used, what does idling cost, what should be done?"""

from datetime import timedelta

import streamlit as st

from dashboards import words
from dashboards.findings_section import draw_findings
from dashboards.funnel_section import draw_hours_funnel
from dashboards.headline_section import draw_headline
from dashboards.outlook_section import draw_demand, draw_plan
from dashboards.port import Desk, current
from dashboards.scope import Scope, clusters, find_scope
from dashboards.trust_questions import last_sample_at
from dashboards.trust_section import draw_trust
from fleet.errors import StewardError

_WINDOWS = {"24h": timedelta(hours=24), "7d": timedelta(days=7), "14d": timedelta(days=14), "30d": timedelta(days=30)}
_ALL = "all"


def draw() -> None:
    """Draw the filters and, below them, what is refreshed; what our own rooms can't do is told in their words."""
    try:
        with current() as desk:
            names = clusters(desk.engine)
    except StewardError as error:
        st.error(str(error), icon=":material/error:")
        return
    window, cluster = _draw_filters(names)
    _draw_answers(_WINDOWS[window], cluster)


@st.fragment(run_every=timedelta(seconds=30))
def _draw_answers(window: timedelta, cluster: str | None) -> None:
    """Draw everything below the filters, again and again: each time over a window that ends where the data ends."""
    try:
        with current() as desk:
            scope = find_scope(desk.engine, window, cluster)
            if scope is None:
                _draw_beginning()
                return
            _draw_window(desk, scope)
            draw_headline(desk, scope)
            draw_hours_funnel(desk, scope)
            draw_findings(desk, scope)
            draw_demand(desk, scope)
            draw_plan(desk, scope)
            draw_trust(desk, scope)
    except StewardError as error:
        st.error(str(error), icon=":material/error:")


def _draw_filters(names: list[str]) -> tuple[str, str | None]:
    title, window, cluster = st.columns([4, 3, 2], vertical_alignment="bottom")
    title.title("Fleet overview", anchor=False)
    looked_back = window.segmented_control(
        "Window",
        list(_WINDOWS),
        default="7d",
        required=True,
        key="window",
        bind="query-params",
        help="The page looks back this far from the newest row that was collected.",
    )
    chosen = cluster.selectbox(
        "Cluster",
        [_ALL, *names],
        format_func=lambda name: "All clusters" if name == _ALL else name,
        key="cluster",
        bind="query-params",
    )
    return looked_back, None if chosen == _ALL else chosen


def _draw_beginning() -> None:
    st.info("Nothing collected yet.", icon=":material/hourglass_empty:")
    st.markdown(
        "To begin, do one of these:\n\n"
        "- `steward demo` simulates a fleet with known faults and waste, and fills this page;\n"
        "- `steward collect --source nvml` reads the GPUs of this machine;\n"
        "- `steward replay FILE` loads a recorded trace.\n\n"
        "Then `steward analyse` judges what was collected. This page looks again every half minute."
    )


def _draw_window(desk: Desk, scope: Scope) -> None:
    newest = last_sample_at(desk.engine)
    age = None if newest is None else desk.clock.now() - newest
    turn = "not analysed yet: run `steward analyse`" if scope.turn is None else f"analysed {words.moment(scope.turn)}"
    st.caption(
        f"As of **{words.moment(scope.until)}** · window from {words.moment(scope.since)} · {turn} · "
        f"newest sample {words.age(age)}"
    )


draw()
