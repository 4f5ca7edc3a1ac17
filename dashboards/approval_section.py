"""What waits for an answer, and the buttons of who may give one: typed, so that nothing is approved by a slip."""

from collections.abc import Sequence

import streamlit as st
from streamlit.column_config import NumberColumn, TextColumn

from dashboards import words
from dashboards.actions_questions import Body, Row, dollars_of, moment_of, text_of
from dashboards.port import Counter
from dashboards.sign_in import Visitor, confirm, order


def draw_proposals(counter: Counter, waiting: Body, who: Visitor | None) -> None:
    """Draw the open proposals, and for who is signed in the way to answer one or a whole plan."""
    if not waiting.items:
        st.success("Nothing waits for an answer.", icon=":material/check:")
        st.markdown("Moves of rules in mode `propose` wait here for a person; `[actions.modes]` says which those are.")
        return
    _draw_table(waiting.items)
    if who is None:
        st.info("You are looking on. Sign in at the top to approve or refuse.", icon=":material/lock:")
        return
    left, right = st.columns([3, 2])
    with left.container(border=True):
        _draw_answer(counter, waiting.items, who)
    with right.container(border=True):
        _draw_whole_plan(counter, waiting.items, who)


def _draw_table(items: Sequence[Row]) -> None:
    rows = [
        {
            "move": words.plain(text_of(item, "kind")),
            "target": text_of(item, "target"),
            "workspace": item.get("workspace"),
            "gpus": item.get("gpus"),
            "saves": None if (saved := dollars_of(item, "saving_usd_per_hour")) is None else float(saved),
            "state": text_of(item, "state"),
            "needs": item.get("needs"),
            "expires": moment_of(item, "expires_at"),
            "outlook": item.get("outlook"),
            "why": text_of(item, "reason"),
        }
        for item in items
    ]
    st.dataframe(
        rows,
        column_config={
            "move": "Move",
            "target": "Target",
            "workspace": "Workspace",
            "gpus": NumberColumn("GPUs", format="%.3g"),
            "saves": NumberColumn("Saves an hour", format="dollar"),
            "state": "State",
            "needs": "Needs",
            "expires": st.column_config.DatetimeColumn("Expires (UTC)", format="D MMM, HH:mm", timezone="UTC"),
            "outlook": TextColumn("What happens next", width="medium"),
            "why": TextColumn("Why", width="large"),
        },
        hide_index=True,
        placeholder="-",
        height="content" if len(rows) <= 10 else 390,  # noqa: PLR2004 - rows that fit without scrolling
        alt="Proposals that wait for an answer",
    )


def _draw_answer(counter: Counter, items: Sequence[Row], who: Visitor) -> None:
    st.markdown("**Answer one move**")
    labels = {f"{words.plain(text_of(row, 'kind'))}: {text_of(row, 'target')}": row for row in items}
    row = labels[st.selectbox("Move", list(labels), key="answer_move")]
    move_id, target = text_of(row, "move_id"), text_of(row, "target")
    st.caption(words.in_markdown(f"{text_of(row, 'reason')}. Risk: {text_of(row, 'risk')}"))
    note = st.text_input("Note for the record", key=f"note_{move_id}", placeholder="why, in a few words")
    is_typed = confirm("approve", target, f"confirm_{move_id}")
    approve, refuse = st.columns(2)
    asked = {"what": move_id, "note": note}
    if approve.button("Approve", type="primary", disabled=not is_typed, key="approve", width="stretch"):
        _answer(counter, who, "approve", asked, target)
    if refuse.button("Refuse", key="refuse", width="stretch"):
        _answer(counter, who, "refuse", asked, target)


def _draw_whole_plan(counter: Counter, items: Sequence[Row], who: Visitor) -> None:
    st.markdown("**Answer a whole plan**")
    counts: dict[str, int] = {}
    for row in items:
        counts[text_of(row, "plan_id")] = counts.get(text_of(row, "plan_id"), 0) + 1
    plan_id = st.selectbox("Plan", list(counts), key="answer_plan")
    st.caption(f"{words.number_of(counts[plan_id], 'proposal', 'proposals')} of it wait.")
    is_typed = confirm("approve all of it", plan_id, f"confirm_{plan_id}")
    approve, refuse = st.columns(2)
    if approve.button("Approve all", disabled=not is_typed, key="approve_all", width="stretch"):
        _answer(counter, who, "approve", {"what": plan_id}, f"plan {plan_id}")
    if refuse.button("Refuse all", disabled=not is_typed, key="refuse_all", width="stretch"):
        _answer(counter, who, "refuse", {"what": plan_id}, f"plan {plan_id}")


def _answer(counter: Counter, who: Visitor, name: str, asked: dict[str, str], target: str) -> None:
    if order(counter, who, name, asked) is not None:
        done = "approved; the next turn makes it" if name == "approve" else "refused"
        st.toast(f"{target} is {done}")
        st.rerun()
