"""The plan made last as a difference: each move from what to what, why, on which evidence, at what risk and saving."""

from collections.abc import Sequence

import streamlit as st
from streamlit.column_config import NumberColumn, TextColumn

from dashboards import words
from dashboards.actions_questions import (
    Body,
    Row,
    as_json,
    change_lines,
    diff_frame,
    dollars_of,
    moment_of,
    named,
    text_of,
)

_ROWS_WITHOUT_SCROLLING = 10
_HEIGHT = 390


def draw_plan_diff(plan: Body | None) -> None:
    """Draw the plan, or how to come by one."""
    if plan is None:
        st.info("No plan yet.", icon=":material/hourglass_empty:")
        st.markdown("`steward plan` makes one and changes nothing; a server makes one each turn.")
        return
    made_at = moment_of(plan.summary, "made_at")
    ids = plan.summary.get("plans")
    plan_id = str(ids[0]) if isinstance(ids, list) and ids else "-"
    st.caption(f"Plan `{plan_id}`, made {words.moment(made_at)}. A plan changes nothing until its moves are made.")
    if not plan.items:
        st.success("Nothing to do: no verdict calls for a move that the policy allows.", icon=":material/check:")
    else:
        _draw_table(plan)
        _draw_one(plan.items)
    _draw_held(plan)


def _draw_table(plan: Body) -> None:
    frame = diff_frame(plan.items)
    st.dataframe(
        frame,
        column_config={
            "move": TextColumn("Move", help="- takes from somebody, + gives back, ~ changes a value"),
            "target": "Target",
            "change": TextColumn("Before -> after", width="medium"),
            "gpus": NumberColumn("GPUs", format="%.3g"),
            "saves": NumberColumn("Saves an hour", format="dollar"),
            "workspace": "Workspace",
            "why": TextColumn("Why", width="large"),
            "approvals": "Approvals",
        },
        hide_index=True,
        placeholder="-",
        height="content" if frame.height <= _ROWS_WITHOUT_SCROLLING else _HEIGHT,
        alt="The plan's moves, before and after",
    )


def _draw_one(rows: Sequence[Row]) -> None:
    labels = {named(row): row for row in rows}
    chosen = st.selectbox("A move in full", list(labels), key="plan_move")
    row = labels[chosen]
    left, right = st.columns(2)
    with left.container(border=True):
        st.markdown("**Before -> after**")
        st.code("\n".join(change_lines(row)) or "nothing it is known by changes", language=None, wrap_lines=True)
        st.markdown(f"**Why** {words.in_markdown(text_of(row, 'reason'))}")
        st.markdown(f"**Risk** {words.in_markdown(text_of(row, 'risk'))}")
        saved = words.money(dollars_of(row, "saving_usd_per_hour"))
        st.markdown(f"**Saves an hour** {words.in_markdown(saved)}")
        st.markdown(f"**Approvals** {words.in_markdown(text_of(row, 'approvals'))}")
    with right.container(border=True):
        st.markdown("**Evidence**")
        st.code(as_json(row.get("evidence")), language="json", height=260)


def _draw_held(plan: Body) -> None:
    held = plan.summary.get("held_back")
    lines = [str(each) for each in held] if isinstance(held, list) else []
    if not lines:
        return
    with st.expander(f"Left alone on purpose ({len(lines):,})", icon=":material/shield:"):
        st.dataframe(
            {"Held back": lines},
            hide_index=True,
            height=_HEIGHT if len(lines) > _ROWS_WITHOUT_SCROLLING else "content",
            alt="What was held back and why",
        )
