"""The rule that frees gangs that hang: whole, on evidence of every member, and by a person's word."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from actions.apply import apply
from actions.approval import needs_answer
from actions.approval_policy import ApprovalPolicy
from actions.budget import Made
from actions.plan import plan
from actions.policy import ActionPolicy, Modes
from actions.rule_policies import StalledPolicy
from analytics.idle import judge_idle
from analytics.idle_policy import IdlePolicy
from analytics.idle_signals import idle_signals
from fleet.clock import FixedClock
from fleet.move import Move, MoveKind, Stage
from fleet.state import FleetState, Pod, Workload
from fleet.verdict import Severity, Verdict
from simulator.cluster import SimulatorCluster
from simulator.faults_spec import FaultSpec
from simulator.presets import default_spec
from simulator.source import SimulatorSource
from simulator.step import build
from store.store import Store
from tests.actions.closed_loop import ALL_AUTO
from tests.actions.fakes import WIDE, agreed, fleet, idle, part, workload

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=2)
GPUS = ("n0-0", "n0-1", "n1-0", "n1-1")


def gang(**changes: Any) -> Workload:
    return replace(workload("llm", GPUS, LONG_AGO), **{"pods": ("u0", "u1"), "replicas": 2, **changes})


def state_of(**changes: Any) -> FleetState:
    held = gang(**changes)
    plain = fleet(NOW, node_count=20, workloads=[held])
    pods = tuple(
        Pod("c1", "team", f"llm-{place}", f"u{place}", node, held.ref, uuids, started_at=LONG_AGO)
        for place, (node, uuids) in enumerate((("n0", GPUS[:2]), ("n1", GPUS[2:])))
    )
    return replace(plain, pods=pods)


def hanging(**changes: Any) -> Verdict:
    told = {"stop": "spec.suspend=true", "is_gang": True, "usd_per_gpu_hour": "2.50"}
    plain = idle("llm", NOW, state="stalled", rule="some_parts_stalled", action="inspect", severity=Severity.WARNING,
                 evidence=MappingProxyType(told))  # fmt: skip
    return replace(plain, **changes)


def member(uuid: str, state: str = "stalled", **changes: Any) -> Verdict:
    return part(uuid, NOW, state, since=NOW - timedelta(hours=2.5), workload="Job/team/llm", **changes)


def all_told(**one: Any) -> list[Verdict]:
    """Return a gang that hangs with the evidence of each member; `one` changes that of the last."""
    return [hanging(), *(member(uuid) for uuid in GPUS[:3]), replace(member(GPUS[3]), **one)]


def moves(verdicts: Sequence[Verdict], state: FleetState | None = None, **changes: Any) -> tuple[Move, ...]:
    return plan(state or state_of(), verdicts, replace(ALL_AUTO, **changes), NOW).moves


def reasons(verdicts: Sequence[Verdict], state: FleetState | None = None, policy: ActionPolicy = ALL_AUTO) -> list[str]:
    made = plan(state or state_of(), verdicts, policy, NOW)
    assert made.moves == ()
    return [each.reason for each in made.held_back]


def test_a_gang_of_which_no_member_works_is_suspended_whole_with_the_evidence_of_each() -> None:
    (move,) = moves([hanging(), *(member(uuid) for uuid in GPUS[:3]), member(GPUS[3], "idle_held")])
    assert (move.kind, str(move.target), move.rule) == (MoveKind.SUSPEND_WORKLOAD, "Job/team/llm", "stalled")
    assert (move.gpus, move.gpu_uuids) == (4.0, GPUS)
    told = move.evidence["members"]
    assert isinstance(told, list)
    assert [(each["pod"], each["device"], each["state"]) for each in told] == [
        ("team/llm-0", "n0-0", "stalled"), ("team/llm-0", "n0-1", "stalled"), ("team/llm-1", "n1-0", "stalled"),
        ("team/llm-1", "n1-1", "idle_held"),
    ]  # fmt: skip
    assert "3 spin without work, the others idle" in move.reason
    assert "2 pods stop together" in move.risk


@pytest.mark.parametrize(
    ("one", "words"),
    [
        ({"state": "active"}, "n1-1 of its pod llm-1 is active; a gang stops whole"),
        ({"state": "unknown", "severity": Severity.UNKNOWN}, "is unknown; a gang stops whole"),
        ({"state": "bursty"}, "is bursty"),
        ({"subject": "n9-9"}, "nothing is told of n1-1"),
        ({"cluster": "c9"}, "nothing is told of n1-1"),
        ({"since": None}, "not known since when n1-1"),
        ({"since": NOW - timedelta(hours=1)}, "does nothing for 1.0 h; at least 2 h"),
        ({"coverage": 0.5}, "covers 50%"),
        ({"coverage": None}, "coverage"),
        ({"until": NOW - timedelta(hours=4)}, "old"),
        ({"made_at": NOW + timedelta(hours=4)}, "future"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_member_without_evidence_of_its_own_keeps_the_whole_gang(one: dict[str, Any], words: str) -> None:
    assert any(words in each for each in reasons(all_told(**one))), reasons(all_told(**one))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"is_protected": True}, "protected by its owner"),
        ({"is_suspended": True, "suspended_by": "ann"}, "already suspended by ann"),
        ({"started_at": NOW - timedelta(minutes=10)}, "at least 1 h"),
        ({"pods": ("u0", "u1", "u2")}, "not all of its pods are known"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_gang_that_must_not_be_stopped_is_left_alone(changes: dict[str, Any], words: str) -> None:
    assert any(words in each for each in reasons(all_told(), state_of(**changes)))


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        ({"stop": None, "is_gang": True}, "can't be stopped and brought back"),
        ({"stop": "spec.replicas=0", "is_gang": False}, "it is no gang"),
        ({"stop": "spec.suspend=true"}, "it is no gang"),
        ({}, "can't be stopped and brought back"),
    ],
)
def test_what_is_no_gang_or_has_no_way_back_is_left_alone(evidence: dict[str, object], words: str) -> None:
    verdicts = [hanging(evidence=evidence), *all_told()[1:]]
    assert any(words in each for each in reasons(verdicts))


def test_a_member_whose_gpu_another_workload_shares_keeps_the_gang() -> None:
    other = workload("other", ["n1-1"], LONG_AGO)
    state = state_of()
    state = replace(state, workloads=(*state.workloads, other))
    assert any("shared with Job/team/other" in each for each in reasons(all_told(), state))


def test_a_pod_of_which_nobody_knows_what_it_holds_keeps_the_gang() -> None:
    state = state_of()
    blind = replace(state, pods=(state.pods[0], replace(state.pods[1], gpu_uuids=())))
    assert any("nobody knows which GPUs its pod llm-1 holds" in each for each in reasons(all_told(), blind))


def test_what_somebody_resumed_is_left_alone() -> None:
    (move,) = moves(all_told())
    recent = (Made(move, NOW - timedelta(hours=5)),)
    made = plan(state_of(), all_told(), ALL_AUTO, NOW, recent=recent)
    assert made.moves == ()
    assert "is wanted since; left alone 24 h" in made.held_back[0].reason


def test_much_of_a_pool_that_hangs_at_once_is_no_gang_s_fault() -> None:
    policy = replace(ALL_AUTO, stalled=StalledPolicy(breaker_share_of_pool=0.04, breaker_min_gpus=4))
    assert any("look for a common cause" in each for each in reasons(all_told(), policy=policy))


def test_it_waits_for_a_person_though_reclaiming_acts_by_itself() -> None:
    policy = replace(ALL_AUTO, modes=Modes(reclaim="auto"))
    made = plan(state_of(), all_told(), policy, NOW)
    assert [needs_answer(move, made, policy) for move in made.moves] == [True]
    quick = replace(policy, modes=Modes(reclaim="auto", stalled="auto"), approval=ApprovalPolicy())
    assert needs_answer(made.moves[0], made, quick), "in mode auto its owner is told first, and has a grace"


def test_the_recorded_scenarios_of_gangs_never_stop_one_member(data_root: Path) -> None:
    found = 0
    for path in sorted((data_root / "idle").glob("*.json")):
        for scenario in json.loads(path.read_text())["scenarios"]:
            loads = [max(pod.get("max_util", [0.0])) for pod in scenario["pods"] if pod.get("samples") != 0]
            if not scenario.get("jobset") or len(loads) != len(scenario["pods"]):
                continue
            found += 1
            states = ["stalled" if load == 0 else "active" for load in loads][:2]
            told = [hanging(), *(member(uuid, states[place // 2]) for place, uuid in enumerate(GPUS))]
            assert (moves(told) == ()) == ("never stop one member" in scenario["safe"])
    assert found


def test_a_simulated_gang_that_hangs_is_found_put_before_people_and_stopped_whole() -> None:
    plain = default_spec(48, 1.0)
    hangs = replace(plain.training, stretch_hours=0.2, stall_share=1.0, stall_hours=400.0, gang_share=0.0,
                    median_hours=90.0, spread=0.1)  # fmt: skip
    spaces = tuple(replace(each, protected_share=0.0) for each in plain.workspaces)
    world = build(replace(plain, training=hangs, workspaces=spaces, faults=FaultSpec(rate_factor=0.0)))
    source, now = SimulatorSource(world), plain.starts_at + timedelta(hours=5)
    with Store.open(None, clock=FixedClock(now)) as store:
        for batch in source.collect(None, now):
            store.append(batch)
        store.roll_up(plain.starts_at, now)
        policy = IdlePolicy()
        verdicts = judge_idle(store.engine.run(idle_signals(store.engine, now, policy)), policy, now)
    loose = StalledPolicy(breaker_share_of_pool=1.0)
    settings = ActionPolicy(budget=WIDE, stalled=loose)
    made = plan(SimulatorCluster(world).observe(), verdicts, settings, now)
    chosen = [move for move in made.moves if move.rule == "stalled"]
    assert chosen
    assert all(needs_answer(move, made, settings) for move in chosen)
    outcomes = apply(
        replace(made, moves=tuple(chosen)), SimulatorCluster(world), settings, FixedClock(now), lambda _: None,
        actor="t", kill_switch=lambda: False, is_dry_run=False,
        approvals=agreed(made, now, only=[chosen[0].move_id]),
    )  # fmt: skip
    stages = {each.move_id: each.stage for each in outcomes}
    assert [stages[move.move_id] for move in chosen] == [Stage.APPLIED, *[Stage.REFUSED] * (len(chosen) - 1)]
    after = SimulatorCluster(world).observe()
    assert not [pod for pod in after.pods if pod.workload == chosen[0].target]
