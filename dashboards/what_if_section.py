"""What would be if there were more GPUs, or fewer, or idle ones were taken back: sliders over recorded jobs."""

from dataclasses import dataclass
from datetime import timedelta

import polars as pl
import streamlit as st

from analytics.job_frames import quotas_of, read_jobs, workspaces_of
from analytics.queue_replay import Rules
from analytics.what_if import Scenario, World, compare
from dashboards import words
from dashboards.cards import draw_heading
from dashboards.explain import Explanation
from dashboards.forecast_questions import count_gpus, find_job_clusters, find_jobs
from dashboards.port import Desk
from fleet.errors import BadInput

WHAT_IF = Explanation(
    "table `job`: what came when, for how many GPUs and how long; quotas in force",
    "a best-effort first-come queue replays the record twice, as it is and as it would be; GPUs are counted, not "
    "placed",
    "waits are those of the replays, not of the record; utilisation = GPU-hours run over GPU-hours there",
)


@dataclass(frozen=True, slots=True)
class _Change:
    more: float
    is_lending: bool
    idle_share: float


def draw_what_if(desk: Desk) -> None:
    """Draw the sliders and, once asked, both worlds."""
    draw_heading("What if", WHAT_IF)
    clusters = find_job_clusters(desk.engine)
    if not clusters:
        st.caption("No jobs are recorded, so there is nothing to replay: `steward replay FILE` loads a record.")
        return
    cluster = st.selectbox("Cluster", clusters, key="what_if_cluster")
    known = count_gpus(desk.engine, cluster)
    with st.form("what_if"):
        left, middle, right = st.columns(3)
        there = left.number_input("GPUs there", min_value=1, value=known or 64, key="gpus_there")
        more = left.slider("GPUs more or fewer, %", -50, 100, 0, step=5, key="gpus_more")
        lending = middle.toggle("Lend unused quota", value=True, key="lending")
        idle = right.slider("Of each job's time idle and taken back, %", 0, 50, 0, step=5, key="idle")
        is_asked = st.form_submit_button("Replay")
    if not known:
        st.caption("How many GPUs this cluster has is not stored: say it above.")
    if is_asked:
        _draw_worlds(desk, cluster, float(there), _Change(more / 100 * there, lending, idle / 100))


def _draw_worlds(desk: Desk, cluster: str, there: float, asked: _Change) -> None:
    frame = find_jobs(desk.engine, cluster)
    names, now = workspaces_of(frame), desk.clock.now()
    jobs = read_jobs(frame, names, now.timestamp())
    if jobs.count == 0:
        st.caption("No job has a recorded run time to replay.")
        return
    quotas = quotas_of(desk.engine.run(desk.engine.table("quota")), cluster, names, now)
    scenario = Scenario(
        round(asked.more), (), asked.is_lending, tuple((place, asked.idle_share) for place in range(len(names)))
    )
    window = (float(jobs.submitted_s[0]), float(jobs.submitted_s[-1]))
    try:
        before, after, each = compare(jobs, Rules(there, quotas), scenario, window)
    except BadInput as error:
        st.error(str(error), icon=":material/error:")
        return
    _draw_numbers(before, after)
    named = each.with_columns(pl.Series("workspace", [names[place] for place in each["workspace"]]))
    hours = [name for name in named.columns if name.startswith("wait_s")]
    st.dataframe(
        named.with_columns(pl.col(name) / 3600 for name in hours).rename(
            {name: name.removeprefix("wait_s_").replace("_", " ") + ", h" for name in hours}
        ),
        hide_index=True,
        placeholder="-",
        alt="Waits by workspace, now and then",
    )


def _draw_numbers(before: World, after: World) -> None:
    columns = st.columns(4)
    pairs = (
        ("Mean wait", _span(before.wait_s_mean), _span(after.wait_s_mean)),
        ("Wait, 95 %", _span(before.wait_s_p95), _span(after.wait_s_p95)),
        ("Utilisation", words.percent(before.utilisation), words.percent(after.utilisation)),
        ("Jobs started", words.count(before.started), words.count(after.started)),
    )
    for column, (label, was, would_be) in zip(columns, pairs, strict=True):
        column.metric(
            label, would_be, delta=f"now {was}", delta_color="off", delta_arrow="off", help=WHAT_IF.markdown(),
            border=True,
        )  # fmt: skip


def _span(seconds: float | None) -> str:
    return words.UNKNOWN if seconds is None else words.span(timedelta(seconds=seconds))
