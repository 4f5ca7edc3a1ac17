"""What to look at: what is failing, what is held and idle, and the evidence for each."""

import json
from collections.abc import Mapping

import polars as pl
import streamlit as st
from streamlit.column_config import DatetimeColumn, MultiselectColumn, NumberColumn

from dashboards import explain, words
from dashboards.explain import Explanation
from dashboards.port import Desk
from dashboards.scope import Scope
from dashboards.verdict_questions import find_failing, find_wasting, is_judged

_ROWS_SHOWN = 50
_ROWS_WITHOUT_SCROLLING = 8
_HEIGHT = 320


def draw_findings(desk: Desk, scope: Scope) -> None:
    """Draw what the latest turn found, a tab each, with the evidence of the row that is chosen."""
    st.subheader("What to look at", anchor=False)
    failing, wasting = find_failing(desk.engine, scope), find_wasting(desk.engine, scope)
    first, second = st.tabs([f"Failing ({failing.height})", f"Held while idle ({wasting.height})"])
    with first:
        draw_verdicts(failing, "failing", explain.FAILING, _nothing(desk, scope, "health"))
    with second:
        draw_verdicts(wasting, "wasting", explain.WASTING, _nothing(desk, scope, "idle"))


def _nothing(desk: Desk, scope: Scope, topic: str) -> str:
    """Return what no finding means: nothing is wrong, or nothing is known."""
    if scope.turn is None:
        return "Unknown: not analysed yet. `steward analyse` judges what was collected."
    if not is_judged(desk.engine, scope, topic):
        return "Unknown: no telemetry to judge by."
    return "The latest turn found nothing."


def draw_verdicts(verdicts: pl.DataFrame, key: str, why: Explanation, nothing: str) -> None:
    """Draw verdicts as a table with the evidence of the row that is chosen, or what their absence means."""
    if verdicts.is_empty():
        st.caption(nothing, help=why.markdown())
        return
    shown = verdicts.head(_ROWS_SHOWN)
    more = "" if shown.height == verdicts.height else f"The first {shown.height} of {verdicts.height}. "
    st.caption(f"{more}Choose a row to see its evidence.", help=why.markdown())
    chosen = _choose(shown, key)
    _draw_evidence(shown.row(0 if chosen is None else chosen, named=True), is_open=chosen is not None)


def _choose(shown: pl.DataFrame, key: str) -> int | None:
    table = shown.select(
        pl.concat_list("severity").alias("severity"),
        pl.col("state", "rule", "action").str.replace_all("_", " "),
        "subject",
        "node",
        "workspace",
        "since",
        "gpu_hours",
        pl.col("cost_usd").cast(pl.Float64),
    )
    choice = st.dataframe(
        table,
        column_config={
            "severity": MultiselectColumn(
                "Severity", options=["critical", "warning", "info"], color=["red", "orange", "gray"]
            ),
            "state": "State",
            "rule": "Because",
            "action": "Do",
            "subject": "Subject",
            "node": "Node",
            "workspace": "Workspace",
            "since": DatetimeColumn("Since (UTC)", format="D MMM HH:mm", timezone="UTC"),
            "gpu_hours": NumberColumn("GPU-hours", format="%,.1f"),
            "cost_usd": NumberColumn("At stake", format="dollar"),
        },
        hide_index=True,
        placeholder="-",
        height="content" if shown.height <= _ROWS_WITHOUT_SCROLLING else _HEIGHT,
        on_select="rerun",
        selection_mode="single-row",
        key=f"{key}_table",
        alt=f"Verdicts: {key}",
    )
    rows = choice.selection.rows
    # A selection outlives the turn that it was made in, and the next turn may have found less.
    return rows[0] if rows and rows[0] < shown.height else None


def _draw_evidence(verdict: Mapping[str, object], *, is_open: bool) -> None:
    rule, coverage, confidence = words.plain(str(verdict["rule"])), verdict["coverage"], verdict["confidence"]
    facts = {
        "rows": f"{verdict['topic']} of {verdict['subject_kind']} {verdict['subject']}",
        "rule": rule,
        "samples had of those expected": words.percent(coverage if isinstance(coverage, float) else None),
        "confidence": "none given" if not isinstance(confidence, float) else words.percent(confidence),
        "held by": "-" if verdict["workload"] is None else str(verdict["workload"]),
    }
    facts.update((words.plain(name), _fact(value)) for name, value in json.loads(str(verdict["evidence"])).items())
    title = f"Evidence: {words.in_markdown(rule)} on {words.in_markdown(str(verdict['subject']))}"
    with st.expander(title, expanded=is_open, icon=":material/search:"):
        st.dataframe(
            pl.DataFrame({"what": list(facts), "evidence": list(facts.values())}),
            column_config={"what": "What", "evidence": "Evidence"},
            hide_index=True,
            height="content",
        )


def _fact(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
