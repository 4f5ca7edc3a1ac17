"""Whether the numbers can be trusted: coverage, age, what was refused and what failed."""

import polars as pl
import streamlit as st
from streamlit.column_config import DatetimeColumn

from dashboards import explain, words
from dashboards.cards import draw_number
from dashboards.port import Desk
from dashboards.scope import Scope
from dashboards.trust_questions import find_coverage, find_sources, last_sample_at


def draw_trust(desk: Desk, scope: Scope) -> None:
    """Draw coverage, age, rejections and failures, and each source below."""
    st.subheader("Can these numbers be trusted?", anchor=False)
    coverage, sources = find_coverage(desk.engine, scope), find_sources(desk.engine)
    newest = last_sample_at(desk.engine)
    age = None if newest is None else desk.clock.now() - newest
    had = "no telemetry" if coverage is None else f"{words.count(coverage.samples)} samples"
    told = words.number_of(sources.height, "source", "sources")
    with st.grid(4, gap="small", min_column_width=150):
        draw_number("Coverage", words.percent(None if coverage is None else coverage.ratio), had, explain.COVERAGE)
        draw_number("Newest sample", words.age(age), words.moment(newest), explain.AGE)
        draw_number("Rows rejected", _sum(sources, "rejected_rows"), "counted, not stored", explain.REJECTED)
        draw_number("Source failures", _sum(sources, "failures"), told, explain.FAILURES)
    if not sources.is_empty():
        with st.expander("By source", icon=":material/database:"):
            _draw_sources(sources)


def _sum(sources: pl.DataFrame, column: str) -> str:
    return words.count(sum(sources[column].to_list()))


def _draw_sources(sources: pl.DataFrame) -> None:
    st.dataframe(
        sources,
        column_config={
            "source": "Source",
            "read_until": DatetimeColumn("Read until (UTC)", timezone="UTC"),
            "failures": "Failures",
            "rejected_rows": "Rows rejected",
            "last_trouble": "Last trouble",
            "last_trouble_at": DatetimeColumn("Noticed (UTC)", timezone="UTC"),
        },
        hide_index=True,
        placeholder="-",
    )
