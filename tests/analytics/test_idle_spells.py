"""Idle spells: exact intervals through gaps, late samples, restarts, changes of hands and clocks that differ."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from analytics.idle import IdlePolicy, judge_idle
from analytics.idle_runs import idle_spells
from analytics.idle_signals import idle_signals

if TYPE_CHECKING:
    from tests.analytics.conftest import Engine

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def spells(engine: "Engine", now: datetime, skew_s: float = 0.0) -> list[tuple[str, int, int]]:
    """Give (pod, first, last) in whole seconds before `now`."""
    policy = IdlePolicy(interval_s=60, skew_s=skew_s)
    rows = engine.run(idle_spells(engine.tables, now - 6 * HOUR, now, policy)).sort("starts_at", "pod")
    return [
        (pod, round((now - first).total_seconds()), round((now - last).total_seconds()))
        for pod, first, last in rows.select("pod", "starts_at", "ends_at").iter_rows()
    ]


def idle(engine: "Engine", now: datetime, *ranges: tuple[int, int], value: float = 0.0, shift_s: float = 0.0) -> None:
    """Add a sample a minute from the first to the last minute before `now` of each range, both included."""
    for first, last in ranges:
        moments = [now - MINUTE * back + timedelta(seconds=shift_s) for back in range(first, last - 1, -1)]
        engine.add_samples(1, moments, utilization=value)


def one_pod(engine: "Engine", now: datetime, **more: Any) -> None:
    engine.add_gpu(1)
    engine.add_pod(1, now - 5 * HOUR, **more)


def test_a_gap_ends_a_spell_and_the_next_sample_begins_another(engine: "Engine", now: datetime) -> None:
    one_pod(engine, now)
    idle(engine, now, (120, 90), (60, 1))
    assert spells(engine, now) == [("train-0", 7200, 5400), ("train-0", 3600, 60)]


def test_late_samples_mend_the_gap_they_left(engine: "Engine", now: datetime) -> None:
    one_pod(engine, now)
    idle(engine, now, (120, 31), (9, 1))
    assert spells(engine, now) == [("train-0", 7200, 1860), ("train-0", 540, 60)]
    policy = IdlePolicy(interval_s=60)
    before = {v.subject: v for v in judge_idle(engine.run(idle_signals(engine.tables, now, policy)), policy, now)}
    assert (before["GPU-1"].state, before["GPU-1"].rule) == ("unknown", "thin_coverage")
    idle(engine, now, (30, 10))
    assert spells(engine, now) == [("train-0", 7200, 60)]
    after = {v.subject: v for v in judge_idle(engine.run(idle_signals(engine.tables, now, policy)), policy, now)}
    assert (after["GPU-1"].state, after["GPU-1"].since) == ("idle", now - 2 * HOUR)


def test_an_active_sample_in_the_middle_parts_two_spells(engine: "Engine", now: datetime) -> None:
    one_pod(engine, now)
    idle(engine, now, (60, 31), (29, 1))
    idle(engine, now, (30, 30), value=0.9)
    assert spells(engine, now) == [("train-0", 3600, 1860), ("train-0", 1740, 60)]


def test_a_restarted_pod_is_another_pod_and_the_time_between_is_nobodys(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    engine.add_pod(1, now - 5 * HOUR, name="first", ends_at=now - 40 * MINUTE)
    engine.add_pod(1, now - 35 * MINUTE, name="second")
    idle(engine, now, (60, 1))
    assert spells(engine, now) == [("first-0", 3600, 2400), ("second-0", 2100, 60)]


def test_a_collector_restart_that_lost_nothing_changes_nothing(engine: "Engine", now: datetime) -> None:
    one_pod(engine, now)
    idle(engine, now, (60, 30))
    idle(engine, now, (29, 1), shift_s=20.0)
    assert spells(engine, now) == [("train-0", 3600, 40)]


def test_a_gpu_that_moves_between_pods_is_charged_to_each_for_its_own_time(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    engine.add_pod(1, now - 3 * HOUR, name="a", ends_at=now - 30 * MINUTE)
    engine.add_pod(1, now - 30 * MINUTE, name="b")
    idle(engine, now, (90, 1))
    assert spells(engine, now) == [("a-0", 5400, 1800), ("b-0", 1800, 60)]
    policy = IdlePolicy(interval_s=60)
    verdicts = {v.subject: v for v in judge_idle(engine.run(idle_signals(engine.tables, now, policy)), policy, now)}
    assert (verdicts["team/b-0"].state, verdicts["GPU-1"].rule) == ("unknown", "too_young")


def test_an_idle_pod_is_not_charged_with_the_idleness_before_it(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    engine.add_pod(1, now - 70 * MINUTE, name="b")
    idle(engine, now, (170, 1))
    policy = IdlePolicy(interval_s=60)
    verdicts = {v.subject: v for v in judge_idle(engine.run(idle_signals(engine.tables, now, policy)), policy, now)}
    assert verdicts["GPU-1"].since == now - 70 * MINUTE


def test_an_exporter_ahead_of_the_api_server_charges_nobody_with_work_of_another(
    engine: "Engine", now: datetime
) -> None:
    # A worked until it ended 30 minutes ago; the exporter's clock is 90 s ahead, so its last samples fall to B.
    engine.add_gpu(1)
    engine.add_pod(1, now - 3 * HOUR, name="a", ends_at=now - 30 * MINUTE)
    engine.add_pod(1, now - 30 * MINUTE, name="b")
    idle(engine, now, (60, 31), value=0.9, shift_s=90.0)
    idle(engine, now, (30, 3), shift_s=90.0)
    assert spells(engine, now) == [("b-0", 1710, 90)]


def test_an_exporter_behind_the_api_server_charges_nobody_near_the_change_of_hands(
    engine: "Engine", now: datetime
) -> None:
    # A worked to its end, B idles from then on; 90 s behind, B's first idle samples fall to A, unless cut by the skew.
    engine.add_gpu(1)
    engine.add_pod(1, now - 3 * HOUR, name="a", ends_at=now - 30 * MINUTE)
    engine.add_pod(1, now - 30 * MINUTE, name="b")
    idle(engine, now, (60, 31), value=0.9, shift_s=-90.0)
    idle(engine, now, (30, 1), shift_s=-90.0)
    assert spells(engine, now) == [("a-0", 1890, 1800), ("b-0", 1800, 150)]
    assert spells(engine, now, skew_s=90.0) == [("b-0", 1710, 150)]


def test_an_exporter_far_behind_is_unknown_and_never_idle(engine: "Engine", now: datetime) -> None:
    one_pod(engine, now)
    idle(engine, now, (120, 1), shift_s=-300.0)
    policy = IdlePolicy(interval_s=60)
    verdicts = {v.subject: v for v in judge_idle(engine.run(idle_signals(engine.tables, now, policy)), policy, now)}
    assert (verdicts["GPU-1"].state, verdicts["GPU-1"].rule) == ("unknown", "thin_coverage")


def test_a_mig_parents_utilization_makes_no_spell(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1, mig_enabled=True)
    engine.add_pod(1, now - 5 * HOUR)
    idle(engine, now, (60, 1))
    assert spells(engine, now) == []
