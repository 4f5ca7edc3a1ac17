"""What will be wanted, how far that can be trusted, when it runs out, and what would be if?"""

import streamlit as st

from dashboards import words
from dashboards.forecast_charts import bands
from dashboards.forecast_questions import (
    Series,
    find_exhaustion,
    find_forecast_of,
    find_history_of,
    find_scores_of,
    find_series,
)
from dashboards.forecast_section import draw_exhaustion, draw_scores
from dashboards.port import Desk, current
from dashboards.what_if_section import draw_what_if
from fleet.errors import StewardError

_DAYS = {"7d": 7, "14d": 14, "56d": 56}


def draw() -> None:
    """Draw the page; what our own rooms can't do is told in their words."""
    st.title("Demand and forecast", anchor=False)
    try:
        with current() as desk:
            series = find_series(desk.engine)
            if series:
                _draw_series(desk, series)
            else:
                st.info("No forecast yet.", icon=":material/hourglass_empty:")
                st.markdown("`steward analyse` forecasts what the queues told of, or recorded jobs; then look again.")
            draw_exhaustion(find_exhaustion(desk.engine))
            draw_what_if(desk)
    except StewardError as error:
        st.error(str(error), icon=":material/error:")


def _draw_series(desk: Desk, series: list[Series]) -> None:
    left, right = st.columns([5, 2], vertical_alignment="bottom")
    labels = {each.label(): each for each in series}
    chosen = left.selectbox("Series", list(labels), key="series", bind="query-params")
    days = right.segmented_control("History", list(_DAYS), default="14d", required=True, key="days")
    picked = labels[chosen]
    forecast = find_forecast_of(desk.engine, picked)
    history = find_history_of(desk.engine, picked, _DAYS[days])
    st.echarts_chart(bands(history, forecast), height=360, alt="GPUs wanted, capacity, forecast with its bands")
    if not forecast.is_empty() and forecast["note"][0] is not None:
        st.warning(words.in_markdown(str(forecast["note"][0])), icon=":material/info:")
    draw_scores(find_scores_of(desk.engine, picked))


draw()
