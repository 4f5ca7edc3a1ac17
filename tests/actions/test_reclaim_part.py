"""Some replicas of a service idle: those go, the others stay, and never too many of them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import pytest

from actions.budget import Made
from actions.guard import guard
from actions.plan import plan
from fleet.errors import MoveRefused
from fleet.move import Move, MoveKind, Plan
from fleet.state import FleetState, ObjectRef, Pod
from fleet.verdict import Severity, Verdict
from simulator.behaviour import ServingSpec
from simulator.faults_spec import FaultSpec
from simulator.presets import default_spec
from simulator.truth import work_intervals
from simulator.world import World
from tests.actions.closed_loop import ALL_AUTO, Loop, kinds
from tests.actions.fakes import fleet, idle, workload

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
OLD = NOW - timedelta(days=2)


def service(kind: str = "Deployment", replicas: int = 4, **changes: Any) -> FleetState:
    state = fleet(NOW)
    gpus = [f"n0-{place}" for place in range(replicas)]
    ref = ObjectRef(kind, "team", "chat")
    plain = workload("chat", gpus, OLD, ref=ref, replicas=replicas, pods=tuple(f"u{p}" for p in range(replicas)))
    pods = tuple(Pod("c1", "team", f"chat-{p}", f"u{p}", "n0", ref, (gpu,)) for p, gpu in enumerate(gpus))
    return replace(state, workloads=(replace(plain, **changes),), pods=pods)


def told(idle_ones: Sequence[int], kind: str = "Deployment", replicas: int = 4, **changes: Any) -> list[Verdict]:
    name = f"{kind}/team/chat"
    whole = idle(
        "chat", NOW, subject=name, workload=name, state="under_used", rule="some_parts_idle", action="recommend_fewer",
        evidence=MappingProxyType({"pod_count": replicas, "stop": "spec.replicas=0", "usd_per_gpu_hour": "2.50"}),
    )  # fmt: skip
    parts = [
        replace(idle("chat", NOW), subject_kind="replica", subject=f"team/chat-{place}", workload=name,
                state="idle_held" if place in idle_ones else "active",
                action="reclaim" if place in idle_ones else "none",
                evidence=MappingProxyType({"pod_uid": f"u{place}"}))
        for place in range(replicas)
    ]  # fmt: skip
    parts = [replace(each, **changes) if each.state == "idle_held" else each for each in parts]
    return [whole, *parts]


def planned(state: FleetState, verdicts: Sequence[Verdict], recent: Sequence[Made] = ()) -> Plan:
    return plan(state, verdicts, ALL_AUTO, NOW, recent=recent)


def test_the_idle_replicas_go_and_the_busy_ones_stay() -> None:
    made = planned(service(), told([1, 3]))
    (move,) = made.moves
    assert (move.kind, move.arguments["replicas"], move.gpus) == (MoveKind.SCALE_WORKLOAD, 2, 2.0)
    assert move.evidence["idle_pods"] == ["team/chat-1", "team/chat-3"]
    assert str(move.saving_usd_per_hour) == "5.000000"
    assert made.held_back == ()


@pytest.mark.parametrize(
    ("state", "verdicts", "replicas"),
    [
        (service(), told([0, 1, 2, 3]), 1),
        (service(replicas_floor=3), told([0, 1, 2]), 3),
        (service("StatefulSet"), told([2, 3], "StatefulSet"), 2),
        (service("StatefulSet"), told([0, 3], "StatefulSet"), 3),
    ],
    ids=["never the last", "not below the floor", "the last two", "only the last one"],
)
def test_as_many_stay_as_must(state: FleetState, verdicts: list[Verdict], replicas: int) -> None:
    assert [move.arguments["replicas"] for move in planned(state, verdicts).moves] == [replicas]


def scaled(hours: float) -> Made:
    move = Move("m", MoveKind.SCALE_WORKLOAD, "c1", ObjectRef("Deployment", "team", "chat"), "x", "x")
    return Made(move, NOW - timedelta(hours=hours))


@pytest.mark.parametrize(
    ("state", "verdicts", "recent", "words"),
    [
        (service("StatefulSet"), told([0, 1], "StatefulSet"), (), "none of its 4 replicas can go alone"),
        (service("LeaderWorkerSet"), told([1], "LeaderWorkerSet"), (), "no replicas that can go alone"),
        (service("StatefulSet", queue="q"), told([2, 3], "StatefulSet"), (), "lets a StatefulSet go to none"),
        (service("Job"), told([1], "Job"), (), "no replicas that can go alone"),
        (service(is_protected=True), told([1]), (), "protected by its owner"),
        (service(replicas_floor=4), told([1]), (), "at least 4 stay"),
        (
            service(replicas_floor=2, sized_by="HorizontalPodAutoscaler grow"), told([1]), (),
            "HorizontalPodAutoscaler grow decides its size (at least 2) and would change it back",
        ),
        (service(replicas=5), told([1]), (), "it had 4 replicas when it was judged and has 5 now"),
        (service(), told([1], since=NOW - timedelta(minutes=30)), (), "none of its 4 replicas"),
        (service(), told([1], coverage=0.5), (), "none of its 4 replicas"),
        (service(), told([1], state="bursty"), (), "none of its 4 replicas"),
        (service(), told([1], severity=Severity.UNKNOWN), (), "none of its 4 replicas"),
        (service(), told([1]), (scaled(2),), "left alone 24 h"),
        (fleet(NOW), told([1]), (), "it is gone"),
    ],
    ids=["not the last ordinals", "gang", "queued", "job", "protected", "floor", "autoscaler", "scaled since",
         "not long", "gaps", "bursty", "unknown", "changed lately", "gone"],
)  # fmt: skip
def test_what_can_not_go_alone_stays_with_a_reason(
    state: FleetState, verdicts: list[Verdict], recent: tuple[Made, ...], words: str
) -> None:
    made = planned(state, verdicts, recent)
    assert made.moves == ()
    assert any(words in each.reason for each in made.held_back), made.held_back


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"replicas_floor": 3}, "at least 3 of its replicas stay"),
        ({"sized_by": "ScaledObject queue", "replicas_floor": 1}, "ScaledObject queue decides its size"),
    ],
)
def test_what_has_come_to_keep_more_since_the_plan_is_not_made_smaller(changes: dict[str, Any], words: str) -> None:
    (move,) = planned(service(), told([1, 3])).moves
    guard(move, service(), ALL_AUTO, NOW)
    with pytest.raises(MoveRefused, match=words):
        guard(move, service(**changes), ALL_AUTO, NOW)


@pytest.mark.parametrize("stop", [None], ids=["no way back"])
def test_what_can_not_be_brought_back_is_not_suspended(stop: str | None) -> None:
    state = fleet(NOW, workloads=[workload("ray", ["n0-0"], OLD, ref=ObjectRef("RayService", "team", "ray"))])
    name = "RayService/team/ray"
    verdict = idle("ray", NOW, subject=name, workload=name, evidence=MappingProxyType({"stop": stop}))
    made = planned(state, [verdict])
    assert made.moves == ()
    assert "can't be stopped and brought back" in made.held_back[0].reason


def truth(world: World) -> list[Verdict]:
    """Tell what each service did in the last two hours, as the idle verdicts would."""
    runs = work_intervals(world)
    since = world.now - timedelta(hours=2)
    busy = set(runs.filter(runs["ends_at"] > since, runs["state"] == "working")["pod_uid"])
    found = []
    for index in list(world.live_workloads):
        owner = world.workloads[index]
        pods = [world.pods[pod] for task in owner.live for pod in world.tasks[task].pods]
        resting = [pod for pod in pods if pod.uid not in busy and world.moment(pod.starts_s) < since]
        if owner.ref.kind != "Deployment" or not resting or len(resting) == len(pods):
            continue
        name = str(owner.ref)
        like = idle("", world.now, cluster=world.spec.clusters[owner.cluster].name, subject=name, workload=name,
                    since=since, until=world.now)  # fmt: skip
        found.append(replace(like, state="under_used", action="recommend_fewer",
                             evidence=MappingProxyType({"pod_count": len(owner.live)})))  # fmt: skip
        found.extend(
            replace(like, subject_kind="replica", subject=f"{owner.ref.namespace}/{pod.name}", state="idle_held",
                    evidence=MappingProxyType({"pod_uid": pod.uid}))
            for pod in resting
        )  # fmt: skip
    return found


@pytest.mark.parametrize("restarts", [False, True], ids=["running on", "restarted each turn"])
def test_in_a_closed_loop_no_service_is_scaled_twice_nor_to_nothing(
    restarts: bool,  # noqa: FBT001 - a table's column
) -> None:
    lazy = ServingSpec(
        replicas=(4,), replicas_weights=(1.0,), gpus=(1,), gpus_weights=(1.0,), idle_minutes=900.0,
        idle_minutes_least=600.0,
    )  # fmt: skip
    spec = replace(default_spec(48, 1.0), serving=lazy, faults=FaultSpec(rate_factor=0.0))
    two_hours = replace(ALL_AUTO, reclaim=replace(ALL_AUTO.reclaim, min_idle_h=2.0))  # as long as `truth` looks back
    loop = Loop(spec, truth, two_hours, timedelta(hours=1))
    loop.begin(timedelta(hours=6))
    made = loop.turns(12, restarts=restarts)
    moves = [move for turn in made for move in turn]
    assert "scale_workload" in kinds(made)
    assert len({move.target for move in moves}) == len(moves)
    assert all(each.replicas >= 1 for each in loop.state.workloads if each.ref in {move.target for move in moves})
