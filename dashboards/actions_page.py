"""What would be done, what waits for me, what was done and by whom, and what would another policy have done?"""

import streamlit as st

from dashboards import port, words
from dashboards.actions_questions import Body, Row, body_of, dollars_of, text_of, undoable
from dashboards.approval_section import draw_proposals
from dashboards.plan_section import draw_plan_diff
from dashboards.port import Counter
from dashboards.record_section import draw_record
from dashboards.replay_section import draw_replay
from dashboards.sign_in import Visitor, draw_sign_in
from fleet.errors import BadInput, StewardError

_TILE_PX = (233, 124)  # two side by side on a narrow page, four on a wide one
_SPANS = {"24h": "24h", "7d": "7d", "30d": "30d"}


def draw() -> None:
    """Draw the page; what our own rooms can't do is told in their words."""
    try:
        _draw(port.counter())
    except StewardError as error:
        st.error(str(error), icon=":material/error:")


def _draw(counter: Counter) -> None:
    title, sign_in = st.columns([3, 2], vertical_alignment="bottom")
    title.title("Actions", anchor=False)
    with sign_in:
        who = draw_sign_in(counter)
    plan = _plan(counter)
    waiting = body_of(counter.report("proposals", {}))
    brake = _draw_brake(counter)
    span = _SPANS["7d"]
    log = body_of(counter.report("actions_log", {"since": span}))
    _draw_numbers(plan, waiting, log, brake)
    answer, difference, record, replay = st.tabs(
        [f"Waiting ({len(_needing(waiting)):,})", "Plan", "Record and undo", "Try a policy"], key="actions_tab"
    )
    with answer:
        draw_proposals(counter, waiting, who)
    with difference:
        draw_plan_diff(plan)
    with record:
        _draw_log(counter, who)
    with replay:
        draw_replay(counter)


def _plan(counter: Counter) -> Body | None:
    try:
        return body_of(counter.report("plan_diff", {}))
    except BadInput:  # no plan is recorded yet, which the section says
        return None


def _draw_brake(counter: Counter) -> str | None:
    reason = body_of(counter.report("brake_state", {})).summary.get("reason")
    if reason is None:
        return None
    st.error(
        f"The brake is on: {words.in_markdown(str(reason))}. No move is made until `steward brake off`.",
        icon=":material/front_hand:",
    )
    return str(reason)


def _draw_numbers(plan: Body | None, waiting: Body, log: Body, brake: str | None) -> None:
    saved = None if plan is None else dollars_of(plan.summary, "saving_usd_per_hour")
    planned = "no plan yet" if plan is None else words.number_of(len(plan.items), "move", "moves")
    below = f"an hour, {planned}" if saved is not None else planned
    tiles = (
        ("Waiting for an answer", f"{len(_needing(waiting)):,}", None),
        ("The plan would save", "-" if plan is None or not plan.items else words.money(saved), below),
        ("Moves that stand, last 7 days", f"{len(undoable(log.items)):,}", None),
        ("Brake", "off" if brake is None else "on", None),
    )
    with st.container(horizontal=True):
        for label, value, told in tiles:
            st.metric(
                label, value, delta=told, delta_color="off", delta_arrow="off", border=True, height=_TILE_PX[1],
                width=_TILE_PX[0],
            )  # fmt: skip


def _needing(waiting: Body) -> list[Row]:
    return [item for item in waiting.items if text_of(item, "state") in {"proposed", "notified"}]


def _draw_log(counter: Counter, who: Visitor | None) -> None:
    span = st.segmented_control("Look back", list(_SPANS), default="7d", required=True, key="record_span")
    draw_record(counter, body_of(counter.report("actions_log", {"since": _SPANS[span]})), who)


draw()
