"""Idle: the rule, what stops it, and who is asked to give back what."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from analytics.idle import IdlePolicy, Prior, judge_idle
from analytics.idle_signals import idle_signals
from fleet.errors import BadInput
from fleet.verdict import Verdict, verdict_frame

if TYPE_CHECKING:
    from tests.analytics.conftest import Engine

MINUTE = timedelta(minutes=1)
POLICY = IdlePolicy()


def minutes(now: datetime, count: int = 60) -> list[datetime]:
    return [now - MINUTE * back for back in range(count, 0, -1)]


def judge(engine: "Engine", now: datetime, policy: IdlePolicy = POLICY, **prior: Any) -> dict[str, Verdict]:
    frame = engine.run(idle_signals(engine.tables, now, policy))
    verdicts = judge_idle(frame, policy, now, Prior(**prior))
    assert verdict_frame(verdicts).height == len(verdicts)
    return {verdict.subject: verdict for verdict in verdicts}


def hold(engine: "Engine", now: datetime, gpu: int = 1, **more: Any) -> None:
    engine.add_pod(gpu, now - timedelta(days=1), **more)


def test_an_empty_store_gives_no_verdicts(engine: "Engine", now: datetime) -> None:
    assert judge(engine, now) == {}


def test_a_gpu_without_telemetry_is_unknown(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    hold(engine, now)
    verdict = judge(engine, now)["GPU-1"]
    assert (verdict.state, verdict.rule, verdict.action) == ("unknown", "no_telemetry", "none")


@pytest.mark.parametrize(
    ("values", "state"),
    [
        pytest.param([0.0] * 60, "idle", id="all-zero"),
        pytest.param([0.0] * 30 + [1.0] + [0.0] * 29, "idle", id="one-sample-active"),
        pytest.param([0.0] * 58 + [0.06, 0.06], "active", id="two-samples-active"),
        pytest.param([0.05] * 60, "idle", id="exactly-the-line"),
        pytest.param([0.0] * 57 + [None] * 3, "idle", id="95-percent-known"),
        pytest.param([0.0] * 56 + [None] * 4, "unknown", id="below-95-percent-known"),
        pytest.param([None] * 60, "unknown", id="nothing-known"),
        pytest.param([float("nan")] * 60, "unknown", id="not-a-number"),
        pytest.param([0.0] * 50 + [float("nan")] * 10, "unknown", id="some-not-a-number"),
        pytest.param([None] * 58 + [0.9, 0.9], "active", id="active-whatever-is-missing"),
    ],
)
def test_at_most_one_active_sample_makes_a_held_gpu_idle(
    engine: "Engine", now: datetime, values: list[float | None], state: str
) -> None:
    engine.add_gpu(1)
    hold(engine, now)
    engine.add_samples(1, minutes(now), utilization=values)
    verdict = judge(engine, now, IdlePolicy(interval_s=60))["GPU-1"]
    assert verdict.state == state
    assert verdict.action == ("reclaim" if state == "idle" else "none")


@pytest.mark.parametrize(
    ("signals", "state", "signal"),
    [
        pytest.param({"sm_activity": 0.01, "gr_activity": 0.9, "utilization": 1}, "active", "utilization", id="small"),
        pytest.param({"sm_activity": 0.01, "gr_activity": 0.5}, "active", "gr_activity", id="without-utilization"),
        pytest.param({"sm_activity": 0.3, "utilization": 0.0}, "active", "sm_activity", id="utilization-asleep"),
        pytest.param({"sm_activity": 0.01, "gr_activity": 0.02}, "idle", "gr_activity", id="all-still"),
        pytest.param({"sm_activity": float("nan"), "utilization": 0.0}, "idle", "utilization", id="one-unreadable"),
    ],
)
def test_a_gpu_is_idle_only_when_every_signal_is_still(
    engine: "Engine", now: datetime, signals: dict[str, Any], state: str, signal: str
) -> None:
    engine.add_gpu(1)
    hold(engine, now)
    engine.add_samples(1, minutes(now), **signals)
    verdict = judge(engine, now)["GPU-1"]
    assert (verdict.state, verdict.evidence["signal"]) == (state, signal)


def test_a_hole_in_one_gpus_samples_is_seen_against_its_nodes_interval(engine: "Engine", now: datetime) -> None:
    for gpu in (1, 2, 3):
        engine.add_gpu(gpu)
        hold(engine, now, gpu, name=f"job{gpu}")
    every_second = [moment for moment in minutes(now) if moment.minute % 2]
    engine.add_samples(1, every_second, utilization=0.0)
    engine.add_samples(2, minutes(now), utilization=0.0)
    engine.add_samples(3, minutes(now), utilization=0.0)
    verdicts = judge(engine, now)
    assert verdicts["GPU-1"].state == "unknown"
    assert verdicts["GPU-1"].coverage == pytest.approx(0.5)
    assert verdicts["GPU-2"].state == "idle"


def test_samples_dated_in_the_future_do_not_count(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    hold(engine, now)
    engine.add_samples(1, [now + MINUTE * ahead for ahead in range(60)], utilization=0.0)
    assert judge(engine, now)["GPU-1"].rule == "no_telemetry"


@pytest.mark.parametrize(
    ("memory_mib", "state"),
    [
        pytest.param(None, "idle", id="not-measured"),
        pytest.param(0, "idle", id="zero"),
        pytest.param(500, "idle", id="an-empty-context"),
        pytest.param(501, "idle_held", id="a-model-loaded"),
    ],
)
def test_held_memory_makes_it_idle_held(engine: "Engine", now: datetime, memory_mib: int | None, state: str) -> None:
    engine.add_gpu(1)
    hold(engine, now)
    engine.add_samples(1, minutes(now), utilization=0.0, memory_used_mib=memory_mib)
    assert judge(engine, now)["GPU-1"].state == state


@pytest.mark.parametrize(
    ("age", "rule"),
    [
        pytest.param(timedelta(minutes=64), "too_young", id="inside-the-grace"),
        pytest.param(timedelta(minutes=65), "at_most_one_active_sample", id="past-it"),
    ],
)
def test_a_young_pod_is_left_its_window_and_grace(engine: "Engine", now: datetime, age: timedelta, rule: str) -> None:
    engine.add_gpu(1)
    engine.add_pod(1, now - age)
    engine.add_samples(1, minutes(now), utilization=0.0)
    assert judge(engine, now)["GPU-1"].rule == rule


def test_a_gpu_nobody_holds_is_idle_without_a_claim_on_anyone(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    engine.add_pod(1, now - timedelta(days=2), ends_at=now - MINUTE)
    engine.add_samples(1, minutes(now), utilization=0.0, memory_used_mib=40_000)
    verdicts = judge(engine, now)
    assert list(verdicts) == ["GPU-1"]
    assert (verdicts["GPU-1"].state, verdicts["GPU-1"].rule) == ("idle", "unallocated")
    assert (verdicts["GPU-1"].action, verdicts["GPU-1"].workspace) == ("none", None)
    assert verdicts["GPU-1"].gpu_hours is None


@pytest.mark.parametrize(
    ("power_w", "state"),
    [
        pytest.param(75.0, "idle", id="idle-power"),
        pytest.param(120.0, "idle", id="at-the-line"),
        pytest.param(121.0, "active", id="above-it"),
        pytest.param(None, "idle", id="not-measured"),
    ],
)
def test_power_above_idle_vetoes(engine: "Engine", now: datetime, power_w: float | None, state: str) -> None:
    engine.add_gpu(1, model="NVIDIA A100-SXM4-80GB")
    hold(engine, now)
    engine.add_samples(1, minutes(now), utilization=0.0, power_w=power_w)
    watts = {"NVIDIA A100-SXM4-80GB": 60.0}
    assert judge(engine, now, idle_power_w=watts)["GPU-1"].state == state


def test_idle_power_is_known_of_public_models(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1, model="NVIDIA H100 80GB HBM3")
    hold(engine, now)
    engine.add_samples(1, minutes(now), utilization=0.0, power_w=300.0)
    assert judge(engine, now)["GPU-1"].rule == "power_above_idle"


def test_power_of_a_model_nobody_knows_vetoes_nothing(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    hold(engine, now)
    engine.add_samples(1, minutes(now), utilization=0.0, power_w=400.0)
    assert judge(engine, now, idle_power_w={"other": 60.0})["GPU-1"].state == "idle"


def test_one_idle_gpu_of_four_condemns_nothing(engine: "Engine", now: datetime) -> None:
    for gpu in (1, 2, 3, 4):
        engine.add_gpu(gpu)
        hold(engine, now, gpu)
        engine.add_samples(gpu, minutes(now), utilization=0.0 if gpu == 4 else 0.9)
    verdicts = judge(engine, now)
    workload = verdicts["Job/team/train"]
    assert (workload.state, workload.action, workload.subject_kind) == ("under_used", "recommend_fewer", "workload")
    assert workload.evidence["gpus_needed"] == 3
    assert workload.evidence["idle_parts"] == ["GPU-4"]
    assert (verdicts["GPU-4"].state, verdicts["GPU-4"].action) == ("idle", "recommend_fewer")


def test_a_workload_with_an_unknown_gpu_is_not_idle(engine: "Engine", now: datetime) -> None:
    for gpu in (1, 2):
        engine.add_gpu(gpu)
        hold(engine, now, gpu)
    engine.add_samples(1, minutes(now), utilization=0.0)
    verdicts = judge(engine, now)
    assert verdicts["Job/team/train"].state == "unknown"
    assert "reclaim" not in {verdict.action for verdict in verdicts.values()}


def test_a_workload_whose_gpus_are_all_idle_is_reclaimed(engine: "Engine", now: datetime) -> None:
    for gpu in (1, 2):
        engine.add_gpu(gpu, f"n{gpu}")
        hold(engine, now, gpu)
        engine.add_samples(gpu, minutes(now), utilization=0.0, memory_used_mib=9000 if gpu == 2 else 0)
    verdicts = judge(engine, now)
    assert (verdicts["Job/team/train"].state, verdicts["Job/team/train"].action) == ("idle_held", "reclaim")
    assert verdicts["Job/team/train"].gpu_hours == pytest.approx(2.0)


def test_two_workloads_of_one_name_in_two_clusters_are_two(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    engine.add_gpu(2, cluster="c2")
    hold(engine, now, 1)
    hold(engine, now, 2, cluster="c2", pod_uid="other")
    engine.add_samples(1, minutes(now), utilization=0.0)
    engine.add_samples(2, minutes(now), utilization=0.9)
    frame = engine.run(idle_signals(engine.tables, now, POLICY))
    states = {(v.cluster, v.state) for v in judge_idle(frame, POLICY, now) if v.subject_kind == "workload"}
    assert states == {("c1", "idle"), ("c2", "active")}


def test_since_is_the_last_active_sample_and_is_priced(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    hold(engine, now)
    times = minutes(now, 180)
    engine.add_samples(1, times, utilization=[0.9 if moment < now - 2 * 60 * MINUTE else 0.0 for moment in times])
    verdict = judge(engine, now, usd_per_gpu_hour={"GPU-1": Decimal("3.00")})["GPU-1"]
    assert verdict.since == now - timedelta(minutes=121)
    assert verdict.gpu_hours == pytest.approx(121 / 60)
    assert verdict.cost_usd == Decimal("6.050000")


def test_a_price_nobody_knows_is_not_zero(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    hold(engine, now)
    engine.add_samples(1, minutes(now), utilization=0.0)
    verdicts = judge(engine, now)
    assert verdicts["GPU-1"].cost_usd is None
    assert verdicts["Job/team/train"].cost_usd is None


def test_since_never_reaches_across_a_gap(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    hold(engine, now)
    times = [moment for moment in minutes(now, 180) if not 80 * MINUTE < now - moment < 110 * MINUTE]
    engine.add_samples(1, times, utilization=0.0)
    assert judge(engine, now)["GPU-1"].since == now - 80 * MINUTE


def test_since_never_reaches_across_unmeasured_samples(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    hold(engine, now)
    times = minutes(now, 180)
    values = [None if 80 * MINUTE < now - moment < 110 * MINUTE else 0.0 for moment in times]
    engine.add_samples(1, times, utilization=values)
    assert judge(engine, now)["GPU-1"].since == now - 80 * MINUTE


def add_hours(
    engine: "Engine", now: datetime, active: Mapping[int, int], *, missing: frozenset[int] = frozenset()
) -> None:
    for back in range(24, 3, -1):
        if back in missing:
            continue
        engine.add(
            "gpu_hour", gpu=1, hour_at=now - timedelta(hours=back), sample_count=60, known_sample_count=60,
            active_sample_count=active.get(back, 0),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("active", "missing", "hours_back"),
    [
        pytest.param({10: 5}, frozenset(), 9, id="the-end-of-the-last-active-hour"),
        pytest.param({20: 5}, frozenset({12}), 11, id="the-end-of-a-later-gap"),
        pytest.param({}, frozenset(), 24, id="as-far-as-the-evidence-goes"),
        pytest.param({10: 5}, frozenset({4}), 3, id="a-roll-up-that-lags-is-a-gap"),
    ],
)
def test_since_goes_back_through_the_roll_up(
    engine: "Engine", now: datetime, active: dict[int, int], missing: frozenset[int], hours_back: int
) -> None:
    engine.add_gpu(1)
    engine.add_pod(1, now - timedelta(days=3))
    engine.add_samples(1, minutes(now, 180), utilization=0.0)
    add_hours(engine, now, active, missing=missing)
    assert judge(engine, now)["GPU-1"].since == now - timedelta(hours=hours_back)


def test_since_is_not_before_the_pod_that_holds_it(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    engine.add_pod(1, now - timedelta(hours=2))
    engine.add_samples(1, minutes(now, 180), utilization=0.0)
    add_hours(engine, now, {})
    verdict = judge(engine, now)["GPU-1"]
    assert verdict.since == now - timedelta(hours=2)
    assert verdict.gpu_hours == pytest.approx(2.0)


def test_a_gpu_that_comes_back_every_few_hours_is_not_reclaimed_in_its_pause(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    hold(engine, now)
    engine.add_samples(1, minutes(now, 180), utilization=0.0)
    add_hours(engine, now, {20: 30, 16: 30, 12: 30, 8: 30, 4: 30})
    verdicts = judge(engine, now)
    assert (verdicts["GPU-1"].state, verdicts["GPU-1"].rule, verdicts["GPU-1"].action) == (
        "bursty",
        "usual_pause",
        "none",
    )
    assert verdicts["Job/team/train"].action == "none"


def test_a_pause_far_longer_than_usual_is_reclaimed(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    hold(engine, now)
    engine.add_samples(1, minutes(now, 180), utilization=0.0)
    add_hours(engine, now, {22: 30, 20: 30, 18: 30, 16: 30})
    assert judge(engine, now)["GPU-1"].action == "reclaim"


def add_mig_gpu(engine: "Engine", now: datetime, **parent: Any) -> None:
    engine.add_gpu(1, mig_enabled=True)
    engine.add_samples(1, minutes(now), **{"utilization": 0.0, **parent})
    for number in (11, 12):
        engine.add("slice", slice=number, uuid=f"MIG-{number}", gpu=1, profile="3g.40gb")
        hold(engine, now, slice=number, name=f"part{number}", fraction=3 / 7)


def test_a_mig_parents_utilization_is_no_evidence(engine: "Engine", now: datetime) -> None:
    add_mig_gpu(engine, now)
    verdicts = judge(engine, now)
    assert (verdicts["GPU-1"].state, verdicts["GPU-1"].rule) == ("unknown", "no_activity_signal")
    assert verdicts["MIG-11"].state == "unknown"
    assert "reclaim" not in {verdict.action for verdict in verdicts.values()}


@pytest.mark.parametrize(
    ("first", "second", "parent"),
    [
        pytest.param(0.0, 0.9, "active", id="one-works"),
        pytest.param(0.0, 0.0, "idle", id="all-idle"),
        pytest.param(0.0, None, "unknown", id="one-untold"),
    ],
)
def test_slices_are_judged_alone_and_tell_of_their_parent(
    engine: "Engine", now: datetime, first: float, second: float | None, parent: str
) -> None:
    add_mig_gpu(engine, now)
    engine.add_samples(11, minutes(now), "slice_sample", gr_activity=first)
    engine.add_samples(12, minutes(now), "slice_sample", gr_activity=second)
    verdicts = judge(engine, now)
    assert (verdicts["MIG-11"].state, verdicts["MIG-11"].action) == ("idle", "reclaim")
    assert verdicts["Job/team/part11"].action == "reclaim"
    assert (verdicts["GPU-1"].state, verdicts["GPU-1"].action) == (parent, "none")
    assert verdicts["MIG-11"].gpu_hours == pytest.approx(3 / 7)


def test_slices_carved_away_are_not_spoken_of(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    engine.add("slice", slice=11, uuid="MIG-11", gpu=1)
    assert list(judge(engine, now)) == ["GPU-1"]


def test_pods_sharing_an_idle_gpu_are_asked_for_their_part_each(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    for name in ("a", "b"):
        hold(engine, now, name=name, fraction=0.5, workspace=name)
    engine.add_samples(1, minutes(now), utilization=0.0)
    verdicts = judge(engine, now)
    assert {verdict.subject_kind for verdict in verdicts.values()} == {"gpu", "pod", "workload", "workspace"}
    assert {verdict.state for verdict in verdicts.values()} == {"idle"}
    assert verdicts["GPU-1"].workspace is None
    assert verdicts["GPU-1"].gpu_hours == pytest.approx(1.0)


def test_a_gpu_given_out_twice_over_counts_once(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    for name in ("a", "b"):
        hold(engine, now, name=name)
    engine.add_samples(1, minutes(now), utilization=0.0)
    assert judge(engine, now)["GPU-1"].gpu_hours == pytest.approx(1.0)


def test_the_order_of_rows_changes_nothing(engine: "Engine", now: datetime) -> None:
    for gpu in range(6):
        engine.add_gpu(gpu, f"n{gpu % 2}")
        hold(engine, now, gpu, name=f"job{gpu % 3}")
        engine.add_samples(gpu, minutes(now), utilization=0.0 if gpu % 2 else 0.5)
    frame = engine.run(idle_signals(engine.tables, now, POLICY))
    shuffled = frame.sample(fraction=1, shuffle=True, seed=3)
    assert judge_idle(frame, POLICY, now) == judge_idle(shuffled, POLICY, now)


@pytest.mark.parametrize(
    ("field", "value"),
    [("window_s", 0), ("coverage_min", 1.1), ("active_above", float("nan")), ("near_s", 60.0), ("interval_s", -1.0)],
)
def test_a_policy_that_means_nothing_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(BadInput, match=field) as caught:
        IdlePolicy(**{field: value})  # type: ignore[arg-type]  # one field at a time, whichever it is
    assert caught.value.field == field
