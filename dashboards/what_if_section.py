"""What if there were more GPUs, other quotas, less idleness, a rack drained: sliders over recorded jobs."""

from dataclasses import dataclass
from datetime import timedelta

import polars as pl
import streamlit as st

from analytics.job_frames import quotas_of, read_jobs, workspaces_of
from analytics.queue_replay import Rules
from analytics.what_if import Drain, Scenario, World, compare
from dashboards import words
from dashboards.cards import draw_heading
from dashboards.explain import Explanation
from dashboards.forecast_questions import count_gpus, find_job_clusters, find_jobs, find_quotas, find_racks
from dashboards.port import Desk
from fleet.errors import BadInput

WHAT_IF = Explanation(
    "table `job`: what came when, for how many GPUs and how long; quotas in force",
    "a best-effort first-come queue replays the record twice, as it is and as it would be; GPUs are counted, not "
    "placed",
    "waits are those of the replays, not of the record; utilisation = GPU-hours run over GPU-hours there",
)


_LONGEST_DRAIN_H = 168
_NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class _Change:
    """What the sliders say: GPUs more, lending, idle share, (from, to, GPUs) of quota, GPUs drained for hours."""

    more: float
    is_lending: bool
    idle_share: float
    move: tuple[str, str, float] | None
    drained: float
    drain_h: float


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
        with middle:
            move = _ask_move(find_quotas(desk.engine, cluster, desk.clock.now()))
        lending = middle.toggle("Lend unused quota", value=True, key="lending")
        with right:
            drained, hours = _ask_drain(find_racks(desk.engine, cluster))
        idle = right.slider("Of each job's time idle and taken back, %", 0, 50, 0, step=5, key="idle")
        is_asked = st.form_submit_button("Replay")
    if not known:
        st.caption("How many GPUs this cluster has is not stored: say it above.")
    if is_asked:
        asked = _Change(more / 100 * there, lending, idle / 100, move, drained, hours)
        _draw_worlds(desk, cluster, float(there), asked)


def _ask_move(quotas: dict[str, float]) -> tuple[str, str, float] | None:
    if len(quotas) < 2:  # noqa: PLR2004 - it takes two to move quota
        st.caption("Quota can't be moved: fewer than two workspaces have one here.")
        return None
    names = sorted(quotas)
    giver = st.selectbox("Move quota of", names, key="quota_from")
    taker = st.selectbox("to", names, index=1, key="quota_to")
    gpus = st.slider("GPUs of quota moved", 0, max(1, int(max(quotas.values()))), 0, key="quota_moved")
    return (giver, taker, float(gpus)) if gpus > 0 else None


def _ask_drain(racks: dict[str, float]) -> tuple[float, float]:
    """Return the GPUs that are drained, and for how many hours."""
    if not racks:
        st.caption("No rack can be drained: of none is it stored how many GPUs it has.")
        return 0.0, 0.0
    chosen = st.selectbox(
        "Drain", [_NOTHING, *sorted(racks)], key="drain",
        format_func=lambda name: name if name == _NOTHING else f"{name} ({racks[name]:,.0f} GPUs)",
    )  # fmt: skip
    hours = st.slider("Hours drained, from the first job on", 1, _LONGEST_DRAIN_H, 24, key="drain_hours")
    return racks.get(chosen, 0.0), float(hours)


def _scenario(asked: _Change, names: tuple[str, ...], begin_s: float) -> Scenario:
    """Return the sliders as a scenario of workspaces by number."""
    moves: tuple[tuple[int, float], ...] = ()
    if asked.move is not None:
        giver, taker, gpus = asked.move
        moves = ((names.index(giver), -gpus), (names.index(taker), gpus))
    drains = (Drain(asked.drained, begin_s, begin_s + 3600 * asked.drain_h),) if asked.drained > 0 else ()
    idle = tuple((place, asked.idle_share) for place in range(len(names)))
    return Scenario(round(asked.more), moves, asked.is_lending, idle, drains)


def _draw_worlds(desk: Desk, cluster: str, there: float, asked: _Change) -> None:
    frame, now = find_jobs(desk.engine, cluster), desk.clock.now()
    # A workspace may have quota to move and no job yet.
    names = tuple(sorted({*workspaces_of(frame), *(asked.move[:2] if asked.move is not None else ())}))
    jobs = read_jobs(frame, names, now.timestamp())
    if jobs.count == 0:
        st.caption("No job has a recorded run time to replay.")
        return
    quotas = quotas_of(desk.engine.run(desk.engine.table("quota")), cluster, names, now)
    window = (float(jobs.submitted_s[0]), float(jobs.submitted_s[-1]))
    try:
        before, after, each = compare(jobs, Rules(there, quotas), _scenario(asked, names, window[0]), window)
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
