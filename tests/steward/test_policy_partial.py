"""Stops of a part in a replay: pods that went are gone from later turns, and only their hours are counted."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType

import pytest

from fleet.move import Move, MoveKind
from fleet.state import FleetState, Gpu, Node, ObjectRef, Pod, Workload
from fleet.verdict import Severity, Verdict
from steward.config import Settings
from steward.policy_effects import reckon_reclaims
from steward.policy_partial import leaving, told_without
from steward.policy_replay import Candidate, Past, Replayed, Stretch, Work, end_stops, step
from steward.policy_state import Held, Recorded, Spans
from steward.policy_verdicts import Known
from steward.policy_world import World

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
REF = ObjectRef("Deployment", "search", "ranker")
NAMES = ("ranker-a", "ranker-b", "ranker-c")


def scale(*pods: str, stays: int = 1) -> Move:
    named = [f"search/{pod}" for pod in pods]
    return Move(
        f"move {pods}", MoveKind.SCALE_WORKLOAD, "east", REF, "all_parts_idle", "idle", ("GPU-a", "GPU-b", "GPU-c"),
        float(len(pods)), "search", arguments={"replicas": stays}, evidence={"idle_pods": named}, rule="reclaim",
    )  # fmt: skip


def suspend() -> Move:
    return Move("whole", MoveKind.SUSPEND_WORKLOAD, "east", REF, "all_parts_idle", "idle", ("GPU-a",), 1.0, "search")


def state() -> FleetState:
    pods = tuple(
        Pod("east", "search", name, f"uid-{name}", "n1", REF, (f"GPU-{name[-1]}",), started_at=NOW - 9 * HOUR)
        for name in NAMES
    )
    workload = Workload(
        "east", REF, "search", pods=tuple(pod.uid for pod in pods), gpu_uuids=("GPU-a", "GPU-b", "GPU-c"), replicas=3,
        started_at=NOW - 9 * HOUR,
    )  # fmt: skip
    other = Workload("east", ObjectRef("Job", "search", "index"), "search")
    gpus = tuple(Gpu(f"GPU-{letter}", "east", "n1") for letter in "abcdefghijklmnopqrst")
    return FleetState(NOW, gpus, pods=pods, workloads=(workload, other))


def told(*states: str, now: datetime = NOW) -> list[Verdict]:
    """Give what is told of the three replicas, one a GPU, and of the whole."""

    def verdict(kind: str, subject: str, found: str, action: str, evidence: Mapping[str, object]) -> Verdict:
        return Verdict(
            now, "idle", kind, subject, found, Severity.WARNING, "rule", evidence, cluster="east", workspace="search",
            workload=str(REF), action=action, since=NOW - 8 * HOUR, until=now, coverage=1.0,
        )  # fmt: skip

    given = []
    for name, found in zip(NAMES, states, strict=True):
        action = "reclaim" if found == "idle" else "none"
        uuid = f"GPU-{name[-1]}"
        given.append(verdict("gpu", uuid, found, "recommend_fewer" if found == "idle" else "none", {}))
        given.append(verdict("replica", name, found, action, {"pod_uid": f"uid-{name}", "parts": [uuid]}))
    action = "recommend_fewer" if "idle" in states else "none"
    return [*given, verdict("workload", str(REF), "under_used", action, {"pod_count": 3, "parts": []})]


def held(name: str, until: datetime | None = None) -> Held:
    return Held(
        ("east", REF), "search", "ann", f"uid-{name}", name, "n1", f"GPU-{name[-1]}", None, 1.0, NOW - 9 * HOUR, until
    )


def past(rows: Sequence[Held], worked: Mapping[str, Sequence[datetime]] = MappingProxyType({})) -> Past:
    rates = {f"GPU-{name[-1]}": Decimal(2) for name in NAMES}
    gpus = tuple((None, gpu) for gpu in state().gpus)
    record = Recorded((Node("east", "n1"),), gpus, (), tuple(rows), Spans.of(rows), (), frozenset(), rates)
    return Past(Stretch(NOW, NOW + 6 * HOUR), NOW + 10 * HOUR, record, record.held_by(), Work(worked))


def test_pods_that_were_taken_away_are_gone_and_their_gpus_free() -> None:
    world = World()
    world.remember(scale("ranker-b", "ranker-c"), NOW)
    after = world.overlay(state())
    workload, other = after.workloads
    assert [pod.name for pod in after.pods] == ["ranker-a"]
    assert (workload.pods, workload.gpu_uuids, workload.replicas) == (("uid-ranker-a",), ("GPU-a",), 1)
    assert not workload.is_suspended
    assert (other, after.gpus) == (state().workloads[1], state().gpus)


def test_a_second_part_goes_beside_the_first_and_the_whole_after_both() -> None:
    world = World()
    world.remember(scale("ranker-c", stays=2), NOW)
    world.remember(scale("ranker-b"), NOW + HOUR)
    assert world.gone() == {("east", REF): {"search/ranker-b", "search/ranker-c"}}
    assert world.overlay(state()).workloads[0].replicas == 1
    world.remember(suspend(), NOW + 2 * HOUR)
    after = world.overlay(state())
    assert (after.pods, after.workloads[0].is_suspended) == ((), True)


def test_a_part_stands_until_one_of_its_own_pods_worked() -> None:
    rows = [held(name) for name in NAMES]
    worked = {"GPU-a": [NOW + HOUR], "GPU-c": [NOW + 3 * HOUR]}
    world = World()
    stood = world.remember(scale("ranker-b", "ranker-c"), NOW)
    end_stops(world, NOW + 2 * HOUR, past(rows, worked))
    assert stood.ends_at is None
    end_stops(world, NOW + 4 * HOUR, past(rows, worked))
    assert stood.ends_at == NOW + 3 * HOUR
    assert len(world.overlay(state()).pods) == 3


def test_a_part_ends_with_the_last_of_its_pods() -> None:
    world = World()
    stood = world.remember(scale("ranker-b"), NOW)
    end_stops(world, NOW + 2 * HOUR, past([held("ranker-a"), held("ranker-b", NOW + HOUR)]))
    assert stood.ends_at == NOW + 2 * HOUR


def test_what_is_told_of_the_taken_away_falls_away() -> None:
    gone = {("east", REF): frozenset({"search/ranker-c"})}
    kept = told_without(told("active", "active", "idle"), gone)
    assert [each.subject for each in kept] == ["GPU-a", "ranker-a", "GPU-b", "ranker-b"]
    kept = told_without(told("active", "idle", "idle"), gone)
    assert kept[-1].subject_kind == "workload"
    assert kept[-1].evidence["pod_count"] == 2


@pytest.mark.parametrize("gone", [{}, {("west", REF): frozenset({"search/ranker-c"})}], ids=["nothing", "elsewhere"])
def test_nothing_falls_away_where_nothing_was_taken(gone: dict[tuple[str, ObjectRef], frozenset[str]]) -> None:
    given = told("active", "idle", "idle")
    assert list(told_without(given, gone)) == given


def test_a_part_is_not_proposed_again_while_it_stands() -> None:
    run = Replayed(Candidate("ours", Settings()))
    record = past([held(name) for name in NAMES])
    for place in range(4):
        verdicts = tuple(told("active", "active", "idle", now=NOW + place * HOUR))
        step(run, Known(NOW + place * HOUR, verdicts, {}), record)
    assert [(each.at, leaving(each.move)) for each in run.made] == [(NOW, frozenset({"search/ranker-c"}))]
    assert run.world.overlay(record.record.state_at(NOW + HOUR)).workloads[0].gpu_uuids == ("GPU-a", "GPU-b")
    assert set(run.held.values()) == {1}


def test_only_the_hours_of_the_pods_that_went_are_counted_once() -> None:
    run = Replayed(Candidate("ours", Settings()))
    run.world.remember(scale("ranker-c", stays=2), NOW)
    run.world.remember(suspend(), NOW + 2 * HOUR)
    rows = [held("ranker-a"), held("ranker-b", NOW + 4 * HOUR), held("ranker-c")]
    part, whole = reckon_reclaims(run, past(rows))
    assert (part.gpus, part.gpu_hours, part.usd) == (1.0, 10.0, Decimal(20))
    assert (whole.gpus, whole.gpu_hours) == (2.0, 8.0 + 2.0)


def test_work_of_the_pods_that_stayed_makes_no_part_wrong() -> None:
    run = Replayed(Candidate("ours", Settings()))
    run.world.remember(scale("ranker-c", stays=2), NOW)
    rows = [held(name) for name in NAMES]
    (part,) = reckon_reclaims(run, past(rows, {"GPU-a": [NOW + HOUR]}))
    assert part.worked_at is None
    (part,) = reckon_reclaims(run, past(rows, {"GPU-c": [NOW + HOUR]}))
    assert (part.worked_at, part.gpu_hours) == (NOW + HOUR, 1.0)
