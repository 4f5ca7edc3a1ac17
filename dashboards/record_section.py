"""The record: who did what, when, on which evidence, what was there before; and taking it back."""

from collections.abc import Mapping, Sequence

import polars as pl
import streamlit as st
from streamlit.column_config import DatetimeColumn, TextColumn

from dashboards import words
from dashboards.actions_questions import Body, Row, as_json, log_frame, named, rows_of, text_of, undoable
from dashboards.port import Counter
from dashboards.sign_in import Visitor, confirm, order


def draw_record(counter: Counter, log: Body, who: Visitor | None) -> None:
    """Draw the record, one entry in full, and for who is signed in the way to take a move back."""
    if not log.items:
        st.info("Nothing was proposed, made or undone in this time.", icon=":material/history:")
        st.markdown("Rehearsals are shown by `steward actions log --dry-runs`.")
        return
    st.dataframe(
        log_frame(log.items).with_columns(pl.col("kind").str.replace_all("_", " ")),
        column_order=["ts", "event", "who", "kind", "target", "workspace", "detail", "rule", "move_id"],
        column_config={
            "ts": DatetimeColumn("When (UTC)", format="D MMM, HH:mm:ss", timezone="UTC"),
            "event": "What",
            "who": "Who",
            "kind": "Move",
            "target": "Target",
            "workspace": "Workspace",
            "detail": TextColumn("Words", width="large"),
            "rule": "Rule",
            "move_id": "Move's id",
        },
        hide_index=True,
        placeholder="-",
        height=390 if len(log.items) > 10 else "content",  # noqa: PLR2004 - rows that fit without scrolling
        alt="What was done, newest first",
    )
    left, right = st.columns(2)
    with left.container(border=True):
        _draw_entry(log.items)
    with right.container(border=True):
        _draw_undo(counter, undoable(log.items), who)


def _draw_entry(items: Sequence[Row]) -> None:
    st.markdown("**A move's evidence, and what was there before**")
    last = {text_of(item, "move_id"): item for item in items}
    priors = {text_of(item, "move_id"): item["prior"] for item in items if item.get("prior") is not None}
    labels = {named(row): name for name, row in last.items()}
    name = labels[st.selectbox("Move", list(reversed(labels)), key="record_move")]
    st.caption("Before (what an undo puts back)")
    if name in priors:
        st.code(as_json(priors[name]), language="json", wrap_lines=True)
    else:
        st.markdown("Nothing was changed yet.")
    st.caption("Evidence")
    st.code(as_json(last[name].get("evidence")), language="json", height=220)


def _draw_undo(counter: Counter, standing: Sequence[Row], who: Visitor | None) -> None:
    st.markdown("**Take a move back**")
    if not standing:
        st.caption("No move of this time stands, so there is nothing to take back.")
        return
    if who is None:
        st.caption(
            f"{words.number_of(len(standing), 'move stands', 'moves stand')}. Sign in at the top to take one back."
        )
        return
    labels = {named(row): row for row in standing}
    row = labels[st.selectbox("Move that stands", list(labels), key="undo_move")]
    move_id = text_of(row, "move_id")
    st.caption("What others changed since is left alone, and you are told so.")
    if st.button("Rehearse", key="undo_rehearse", width="stretch"):
        _draw_outcomes(order(counter, who, "undo", {"what": move_id, "yes": False}))
    is_typed = confirm("take it back", text_of(row, "target"), f"undo_{move_id}")
    if st.button("Undo", type="primary", disabled=not is_typed, key="undo", width="stretch"):
        _draw_outcomes(order(counter, who, "undo", {"what": move_id, "yes": True}))


def _draw_outcomes(report: Mapping[str, object] | None) -> None:
    if report is None:
        return
    for item in rows_of(report.get("items")):
        st.markdown(words.in_markdown(f"{text_of(item, 'stage')}: {text_of(item, 'detail')}"))
    notes = report.get("notes")
    for note in notes if isinstance(notes, list) else []:
        st.caption(words.in_markdown(str(note)))
