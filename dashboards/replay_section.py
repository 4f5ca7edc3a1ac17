"""Try a policy on the recorded past: the form, the measures side by side, and whom it would have hurt."""

from collections.abc import Mapping, Sequence

import polars as pl
import streamlit as st
from streamlit.column_config import DatetimeColumn, NumberColumn, TextColumn

from dashboards import words
from dashboards.actions_questions import Body, Row, body_of, moment_of, rows_of, text_of
from dashboards.port import Counter
from fleet.errors import StewardError

_SPANS = {"1 day": "1d", "3 days": "3d", "7 days": "7d", "14 days": "14d"}
_STEPS = {"1 hour": "1h", "3 hours": "3h", "6 hours": "6h"}
_EXAMPLE = '[actions.modes]\nreclaim = "auto"\n\n[actions.reclaim]\nmin_idle_h = 8\n'
_KEY = "replayed"


def draw_replay(counter: Counter) -> None:
    """Draw the form and, once it was sent, what the policy would have done."""
    st.caption(
        "Goes over the recorded past step by step, plans by what was known then, and holds every move against what the "
        "record says happened later. Nothing is changed."
    )
    with st.form("replay_policy"):
        span, step = st.columns(2)
        length = span.selectbox("How far back", list(_SPANS), index=0, key="replay_span")
        every = step.selectbox("A plan every", list(_STEPS), index=1, key="replay_step")
        text = st.text_area(
            "Policy to compare with the settings in force (TOML; empty: the settings in force alone)",
            value=_EXAMPLE,
            height=150,
            key="replay_text",
            help="Sections as in steward.toml: `[actions...]`, `[idle]`, `[health]`; `[replay] idle_rule` may be "
            "house, max_zero or mean_below.",
        )
        is_sent = st.form_submit_button("Replay", type="primary", icon=":material/play_arrow:")
    if is_sent:
        _replay(counter, _SPANS[length], _STEPS[every], text)
    found = st.session_state.get(_KEY)
    if isinstance(found, Mapping):
        _draw_result(body_of(found))
    else:
        st.info("Send the form to see the measures here. A day of 512 GPUs takes seconds.", icon=":material/info:")


def _replay(counter: Counter, length: str, every: str, text: str) -> None:
    asked: dict[str, object] = {"from": length, "step": every, "detail": "true"}
    if text.strip():
        # both go through the form's TOML: an empty text is the settings in force
        asked |= {"policy": "", "policy_name": "settings in force", "other": text, "other_name": "this policy"}
    try:
        with st.spinner("Going over the past ..."):
            st.session_state[_KEY] = counter.report("replay_policy", asked)
    except StewardError as error:
        st.session_state.pop(_KEY, None)
        st.error(str(error), icon=":material/error:")


def _draw_result(body: Body) -> None:
    summary = body.summary
    st.markdown("#### Result")
    st.caption(
        f"{words.moment(moment_of(summary, 'from'))} to {words.moment(moment_of(summary, 'to'))} · "
        f"{text_of(summary, 'steps')} steps · verdicts: {text_of(summary, 'verdicts')}"
    )
    _draw_measures(body.items)
    policies = rows_of(summary.get("policies"))
    if policies:
        names = [text_of(each, "policy") for each in policies]
        chosen = st.segmented_control("In detail", names, default=names[-1], required=True, key="replay_policy_shown")
        _draw_policy(policies[names.index(chosen)])
    with st.expander("What this rests on", icon=":material/info:"):
        for note in body.notes:
            st.markdown(f"- {words.in_markdown(note)}")


def _draw_measures(items: Sequence[Row]) -> None:
    names = [name for name in items[0] if name != "measure"]
    rows = [{"measure": text_of(item, "measure"), **{name: _number(item, name) for name in names}} for item in items]
    st.dataframe(
        pl.DataFrame(rows, schema={"measure": pl.String(), **dict.fromkeys(names, pl.Float64())}),
        column_config={
            "measure": "Measure",
            **{name: NumberColumn(name[:1].upper() + name[1:], format="localized") for name in names},
        },
        hide_index=True,
        placeholder="unknown",
        height="content",
        alt="Measures of each policy, side by side",
    )


def _draw_policy(policy: Row) -> None:
    wrong = [row for row in rows_of(policy.get("reclaims")) if row.get("is_wrong") is True]
    st.markdown("**Whom it would have hurt**")
    if wrong:
        st.dataframe(
            [
                {
                    "workload": text_of(row, "workload"),
                    "workspace": text_of(row, "workspace"),
                    "gpus": row.get("gpus"),
                    "at": moment_of(row, "at"),
                    "worked_at": moment_of(row, "worked_at"),
                    "after": row.get("wanted_after_h"),
                }
                for row in sorted(wrong, key=lambda row: _number(row, "wanted_after_h") or 0.0)
            ],
            column_config={
                "workload": "Workload",
                "workspace": "Workspace",
                "gpus": NumberColumn("GPUs", format="%.3g"),
                "at": DatetimeColumn("Reclaimed (UTC)", format="D MMM, HH:mm", timezone="UTC"),
                "worked_at": DatetimeColumn("At work again", format="D MMM, HH:mm", timezone="UTC"),
                "after": NumberColumn("Hours between", format="%.1f"),
            },
            hide_index=True,
            height=320 if len(wrong) > 8 else "content",  # noqa: PLR2004 - rows that fit without scrolling
            alt="Workloads that were wanted again soon",
        )
    else:
        st.caption("Nobody: no workload that it would have reclaimed was wanted again so soon.")
    st.markdown("**What it held back, and why**")
    held = rows_of(policy.get("held_back"))
    if held:
        st.dataframe(
            held,
            column_config={
                "action": "Called for",
                "reason": TextColumn("Why not", width="large"),
                "subjects": "Subjects",
                "times": "Times",
            },
            hide_index=True,
            height="content",
            alt="Reasons for holding back",
        )
    else:
        st.caption("Nothing.")


def _number(row: Row, name: str) -> float | None:
    value = row.get(name)
    return None if value is None else float(str(value))
