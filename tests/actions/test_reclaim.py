from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest

from actions.budget import Made
from actions.plan import plan
from actions.policy import ReclaimPolicy
from fleet.move import MoveKind
from fleet.state import FleetState, Pod, Slice
from tests.actions.fakes import FREE, fleet, idle, part, workload

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=2)


def state_of(**changes: Any) -> FleetState:
    return fleet(NOW, workloads=[replace(workload("train", ["n0-0", "n0-1"], LONG_AGO), **changes)])


def test_an_idle_workload_is_suspended_whole_with_its_price() -> None:
    (move,) = plan(state_of(), [idle("train", NOW)], FREE, NOW).moves
    assert (move.kind, str(move.target)) == (MoveKind.SUSPEND_WORKLOAD, "Job/team/train")
    assert (move.gpus, move.gpu_uuids, move.pool, move.workspace) == (2.0, ("n0-0", "n0-1"), "p", "research")
    assert move.saving_usd_per_hour == Decimal("5.000000")
    assert move.evidence["before"] == {"is_suspended": False, "suspended_by": None, "replicas": 2}
    assert "6.0 h" in move.reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"is_protected": True}, "protected by its owner"),
        ({"woken_by": "ScaledObject queue"}, "ScaledObject queue would start it again"),
        ({"is_suspended": True, "suspended_by": "ann"}, "already suspended by ann"),
        ({"is_suspended": True, "suspended_by": "gpu-steward"}, "already suspended by gpu-steward"),
        ({"started_at": None}, "not known since when it runs"),
        ({"started_at": NOW - timedelta(minutes=10)}, "at least 1 h"),
        ({"started_at": NOW + timedelta(hours=1)}, "at least 1 h"),
        ({"started_at": NOW - timedelta(minutes=90)}, "it idles for 1.5 h"),
        ({"workspace": "vip"}, "workspace vip is protected"),
        ({"gpu_uuids": ()}, "holds no GPU"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_workload_that_must_not_be_stopped_is_held_back(changes: dict[str, Any], words: str) -> None:
    policy = replace(FREE, reclaim=ReclaimPolicy(protected_workspaces=("vip",)))
    made = plan(state_of(**changes), [idle("train", NOW)], policy, NOW)
    assert made.moves == ()
    assert words in made.held_back[0].reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "unknown"}, "unknown"),
        ({"coverage": None}, "coverage"),
        ({"coverage": 0.5}, "covers 50%"),
        ({"coverage": float("nan")}, "covers nan%"),
        ({"since": None}, "not known since when it idles"),
        ({"since": NOW - timedelta(hours=1)}, "it idles for 1.0 h"),
        ({"since": NOW + timedelta(hours=1)}, "it idles for -1.0 h"),
        ({"until": NOW - timedelta(hours=3)}, "3.0 h old"),
        ({"made_at": NOW - timedelta(hours=3), "until": None}, "3.0 h old"),
        ({"made_at": NOW + timedelta(hours=3)}, "future"),
        ({"confidence": 0.1}, "confidence"),
        ({"state": "active"}, "state active"),
        ({"workload": "Job/team/ghost"}, "it is gone"),
        ({"cluster": "c9"}, "it is gone"),
        ({"evidence": MappingProxyType({"parts": ["n0-0"]})}, "evidence does not cover"),
        ({"action": "recommend_fewer"}, "recommend fewer GPUs"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_verdict_too_weak_to_reclaim_on_is_held_back(changes: dict[str, Any], words: str) -> None:
    policy = replace(FREE, reclaim=ReclaimPolicy(min_confidence=0.5))
    made = plan(state_of(), [replace(idle("train", NOW), **changes)], policy, NOW)
    assert made.moves == ()
    assert words in made.held_back[0].reason


@pytest.mark.parametrize("namespace", ["kube-system", "gpu-operator"])
def test_a_protected_namespace_is_never_touched(namespace: str) -> None:
    held = workload("train", ["n0-0"], LONG_AGO)
    held = replace(held, ref=replace(held.ref, namespace=namespace))
    verdict = idle("train", NOW, workload=f"Job/{namespace}/train")
    (back,) = plan(fleet(NOW, workloads=[held]), [verdict], FREE, NOW).held_back
    assert back.reason == f"namespace {namespace} is protected"


def test_a_bare_pod_is_not_stopped_since_it_can_not_be_brought_back() -> None:
    held = workload("train", ["n0-0"], LONG_AGO)
    held = replace(held, ref=replace(held.ref, kind="Pod"))
    (back,) = plan(fleet(NOW, workloads=[held]), [idle("train", NOW, workload="Pod/team/train")], FREE, NOW).held_back
    assert "can't be suspended" in back.reason


@pytest.mark.parametrize("state", ["active", "unknown"])
def test_one_gpu_at_work_or_unknown_keeps_the_whole_gang(state: str) -> None:
    made = plan(state_of(), [idle("train", NOW), part("n0-1", NOW, state)], FREE, NOW)
    assert made.moves == ()
    assert f"n0-1 of train is {state}; a gang stops whole" in made.held_back[0].reason


def test_a_gang_member_told_by_its_workload_counts_as_well() -> None:
    pod = part("pod-7", NOW, "active", subject_kind="pod", workload="Job/team/train")
    assert plan(state_of(), [idle("train", NOW), pod], FREE, NOW).moves == ()


def test_an_old_active_verdict_of_a_part_does_not_keep_the_workload() -> None:
    stale = part("n0-1", NOW - timedelta(hours=5), "active")
    assert len(plan(state_of(), [idle("train", NOW), stale], FREE, NOW).moves) == 1


def test_an_idle_gpu_inside_an_active_workload_leads_to_a_recommendation_only() -> None:
    verdicts = [idle("train", NOW, state="active", action="none"), part("n0-0", NOW, "idle", action="reclaim")]
    made = plan(state_of(), verdicts, FREE, NOW)
    assert made.moves == ()
    assert made.held_back[0].reason.endswith("recommend fewer GPUs")


def test_idle_gpus_whose_workload_is_suspended_are_not_held_back() -> None:
    verdicts = [idle("train", NOW), part("n0-0", NOW, "idle", action="reclaim")]
    made = plan(state_of(), verdicts, FREE, NOW)
    assert (len(made.moves), made.held_back) == (1, ())


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (part("n3-3", NOW, "idle", action="reclaim"), "no workload holds it"),
        (part("n0-0", NOW, "unknown", action="reclaim"), "unknown"),
        (part("n0", NOW, "idle", action="reclaim", subject_kind="node"), "a node can't be reclaimed"),
    ],
    ids=["nobody's", "unknown", "node"],
)
def test_a_part_that_can_not_be_reclaimed_is_held_back(verdict: Any, words: str) -> None:
    made = plan(state_of(), [verdict], FREE, NOW)
    assert made.moves == ()
    assert words in made.held_back[0].reason


def test_two_rules_of_one_moment_must_agree() -> None:
    made = plan(state_of(), [idle("train", NOW), idle("train", NOW, state="active", rule="other")], FREE, NOW)
    assert made.moves == ()


def test_a_newer_active_verdict_outweighs_an_older_idle_one() -> None:
    older = idle("train", NOW - timedelta(minutes=5))
    newer = idle("train", NOW, state="active", action="none", subject="team/train")
    assert plan(state_of(), [older, newer], FREE, NOW).moves == ()


def test_a_name_that_fits_two_kinds_is_held_back() -> None:
    held = workload("train", ["n0-0"], LONG_AGO)
    other = replace(held, ref=replace(held.ref, kind="Deployment"), gpu_uuids=("n0-1",))
    verdict = idle("train", NOW, workload=None, subject="team/train")
    (back,) = plan(fleet(NOW, workloads=[held, other]), [verdict], FREE, NOW).held_back
    assert back.reason == "several workloads bear this name"


def test_what_was_reclaimed_lately_and_resumed_is_left_alone() -> None:
    (move,) = plan(state_of(), [idle("train", NOW)], FREE, NOW).moves
    recent = [Made(move, NOW - timedelta(hours=5), is_undone=True)]
    made = plan(state_of(), [idle("train", NOW)], FREE, NOW, recent=recent)
    assert "was reclaimed" in made.held_back[0].reason
    assert plan(state_of(), [idle("train", NOW)], FREE, NOW, recent=[Made(move, NOW - timedelta(hours=25))]).moves


def test_a_pool_that_idles_nearly_whole_looks_like_dead_telemetry() -> None:
    held = [workload(f"w{number}", [f"n{number}-{each}" for each in range(4)], LONG_AGO) for number in range(4)]
    made = plan(fleet(NOW, workloads=held), [idle(f"w{number}", NOW) for number in range(4)], FREE, NOW)
    assert made.moves == ()
    assert all(back.reason.startswith("breaker: 16 of 16 GPUs") for back in made.held_back)


@pytest.mark.parametrize(
    ("changes", "saving"),
    [
        ({"evidence": MappingProxyType({})}, None),
        ({"evidence": MappingProxyType({"usd_per_gpu_hour": "cheap"})}, None),
        ({"evidence": MappingProxyType({"usd_per_gpu_hour": "NaN"})}, None),
        ({"evidence": MappingProxyType({"usd_per_gpu_hour": "-1"})}, None),
        ({"evidence": MappingProxyType({"usd_per_gpu_hour": "0"})}, Decimal(0)),
        ({"evidence": MappingProxyType({}), "cost_usd": Decimal(36), "gpu_hours": 12.0}, Decimal(6)),
        ({"evidence": MappingProxyType({}), "cost_usd": Decimal(36), "gpu_hours": 0.0}, None),
    ],
    ids=["unpriced", "no number", "nan", "negative", "free", "by cost", "by no hours"],
)
def test_a_saving_is_told_only_where_it_is_priced(changes: dict[str, Any], saving: Decimal | None) -> None:
    made = plan(state_of(), [replace(idle("train", NOW), **changes)], FREE, NOW)
    assert made.moves[0].saving_usd_per_hour == saving
    assert made.saving_usd_per_hour == saving


def test_the_dearest_idleness_comes_first() -> None:
    held = [workload("small", ["n0-0"], LONG_AGO), workload("large", ["n1-0", "n1-1"], LONG_AGO)]
    made = plan(fleet(NOW, workloads=held), [idle("small", NOW), idle("large", NOW)], FREE, NOW)
    assert [move.target.name for move in made.moves] == ["large", "small"]


def test_fractions_of_gpus_are_counted_as_fractions() -> None:
    held = workload("train", ["n0-0"], LONG_AGO)
    pod = Pod("c1", "team", "train-0", "u", "n0", held.ref, ("n0-0",), fraction=0.25)
    state = replace(fleet(NOW, workloads=[held]), pods=(pod,))
    (move,) = plan(state, [idle("train", NOW)], FREE, NOW).moves
    assert (move.gpus, move.saving_usd_per_hour) == (0.25, Decimal("0.625000"))


def test_another_workload_at_work_on_the_same_mig_gpu_does_not_keep_an_idle_one() -> None:
    held = workload("train", ["n0-0"], LONG_AGO)
    state = fleet(NOW, workloads=[held])
    gpus = tuple(replace(gpu, is_mig_enabled=gpu.uuid == "n0-0") for gpu in state.gpus)
    state = replace(state, gpus=gpus, slices=(Slice("s1", "n0-0", "1g.10gb"),))
    verdict = idle("train", NOW, evidence=MappingProxyType({"parts": ["s1"]}))
    assert len(plan(state, [verdict, part("n0-0", NOW, "active")], FREE, NOW).moves) == 1
