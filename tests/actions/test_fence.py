from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import pytest

from actions.kinds import rule_of
from actions.plan import plan
from actions.policy import FencePolicy
from fleet.move import MoveKind
from fleet.state import FleetState, Slice
from fleet.verdict import Severity
from tests.actions.fakes import FREE, failing, fleet

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def with_node(state: FleetState, **changes: Any) -> FleetState:
    return replace(state, nodes=(replace(state.nodes[0], **changes), *state.nodes[1:]))


def test_a_failing_gpu_is_fenced_with_its_node_and_version() -> None:
    (move,) = plan(fleet(NOW), [failing("n0-1", NOW)], FREE, NOW).moves
    assert (move.kind, str(move.target), move.gpu_uuids) == (MoveKind.FENCE_GPU, "Node/n0", ("n0-1",))
    assert (move.cause, move.pool, move.resource_version, move.gpus) == ("xid_79", "p", "1", 1.0)
    assert move.evidence["xid"] == 79
    assert move.evidence["before"] == {"is_fenced": False}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "unknown"}, "unknown"),
        ({"severity": Severity.UNKNOWN}, "unknown"),
        ({"state": "degraded"}, "state degraded"),
        ({"state": "healthy"}, "state healthy"),
        ({"severity": Severity.WARNING}, "severity warning"),
        ({"confidence": 0.5}, "confidence"),
        ({"confidence": float("nan")}, "confidence"),
        ({"subject": "ghost"}, "does not show this GPU"),
        ({"cluster": "c2"}, "does not show this GPU"),
        ({"subject_kind": "slice"}, "slice can't be fenced"),
        ({"made_at": NOW - timedelta(hours=2)}, "2.0 h old"),
        ({"until": NOW - timedelta(hours=30)}, "30.0 h old"),
        ({"made_at": NOW + timedelta(minutes=5)}, "from the future"),
        ({"until": NOW + timedelta(minutes=5)}, "from the future"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_verdict_too_weak_to_fence_is_held_back_with_the_reason(changes: dict[str, Any], words: str) -> None:
    made = plan(fleet(NOW), [replace(failing("n0-1", NOW), **changes)], FREE, NOW)
    assert made.moves == ()
    (held,) = made.held_back
    assert words in held.reason


def test_a_verdict_that_calls_for_nothing_leaves_no_trace() -> None:
    made = plan(fleet(NOW), [failing("n0-1", NOW, action="none"), failing("n0-2", NOW, action=None)], FREE, NOW)
    assert (made.moves, made.held_back) == ((), ())


@pytest.mark.parametrize("action", ["run_diagnostics", "inspect"])
def test_what_failed_is_fenced_before_it_is_looked_at_and_what_is_only_degraded_is_held_back(action: str) -> None:
    verdicts = [
        failing("n0-1", NOW, state="failed", action=action),
        failing("n1-1", NOW, state="degraded", severity=Severity.WARNING, action=action),
    ]
    made = plan(fleet(NOW), verdicts, FREE, NOW)
    assert [(move.kind, move.gpu_uuids) for move in made.moves] == [(MoveKind.FENCE_GPU, ("n0-1",))]
    assert [(held.subject, held.reason) for held in made.held_back] == [
        ("n1-1", "state degraded is not one of failing, failed")
    ]


@pytest.mark.parametrize("state", ["healthy", "probation", "unknown", "degraded"])
def test_no_state_short_of_failing_is_fenced_whatever_it_asks_for(state: str) -> None:
    for action in (*FREE.fence.fence_actions, *FREE.fence.cordon_actions):
        assert plan(fleet(NOW), [failing("n0-1", NOW, state=state, action=action)], FREE, NOW).moves == ()


def test_an_action_that_no_rule_takes_is_said() -> None:
    (held,) = plan(fleet(NOW), [failing("n0-1", NOW, action="update_driver")], FREE, NOW).held_back
    assert "no rule takes action update_driver" in held.reason


def test_a_gpu_already_fenced_is_not_fenced_again() -> None:
    made = plan(fleet(NOW, fenced=["n0-1"]), [failing("n0-1", NOW)], FREE, NOW)
    assert made.moves == ()
    assert made.held_back[0].reason == "already fenced"


def test_an_old_event_still_counts_where_the_verdict_is_fresh() -> None:
    assert plan(fleet(NOW), [failing("n0-1", NOW, until=NOW - timedelta(hours=20))], FREE, NOW).moves


@pytest.mark.parametrize(
    ("failed", "kinds"),
    [
        (["n0-0"], [MoveKind.FENCE_GPU]),
        (["n0-0", "n0-1"], [MoveKind.FENCE_GPU, MoveKind.FENCE_GPU]),
        (["n0-0", "n0-1", "n0-2"], [MoveKind.CORDON_NODE]),
    ],
    ids=["one", "half", "most"],
)
def test_a_node_is_cordoned_where_more_than_half_of_its_gpus_fail(failed: list[str], kinds: list[MoveKind]) -> None:
    made = plan(fleet(NOW), [failing(uuid, NOW) for uuid in failed], FREE, NOW)
    assert [move.kind for move in made.moves] == kinds
    assert made.held_back == ()


def test_gpus_fenced_before_count_towards_the_cordon() -> None:
    made = plan(fleet(NOW, fenced=["n0-0", "n0-1"]), [failing("n0-2", NOW)], FREE, NOW)
    assert [move.kind for move in made.moves] == [MoveKind.CORDON_NODE]


@pytest.mark.parametrize("action", ["cordon", "drain", "reboot_node"])
def test_an_action_on_the_whole_node_cordons_it_and_covers_its_gpus(action: str) -> None:
    verdicts = [failing("n0-0", NOW, rule="other"), failing("n0-1", NOW, action=action)]
    (move,) = plan(fleet(NOW), verdicts, FREE, NOW).moves
    assert (move.kind, move.gpus, len(move.gpu_uuids)) == (MoveKind.CORDON_NODE, 4.0, 4)


def test_a_node_verdict_cordons_the_node() -> None:
    verdict = failing("n2", NOW, subject_kind="node", action="drain")
    (move,) = plan(fleet(NOW), [verdict], FREE, NOW).moves
    assert (move.kind, str(move.target)) == (MoveKind.CORDON_NODE, "Node/n2")


def test_a_node_verdict_without_its_cluster_is_held_back_where_the_name_is_not_unique() -> None:
    state = fleet(NOW)
    state = replace(state, nodes=(*state.nodes, replace(state.nodes[2], cluster="c2")))
    verdict = failing("n2", NOW, subject_kind="node", action="drain", cluster=None)
    (held,) = plan(state, [verdict], FREE, NOW).held_back
    assert "several clusters" in held.reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"is_schedulable": False, "cordoned_by": "alice"}, "cordoned by alice"),
        ({"is_schedulable": False, "cordoned_by": None}, "cordoned by somebody else"),
        ({"is_schedulable": False, "cordoned_by": "gpu-steward"}, "already cordoned by us"),
        ({"labels": MappingProxyType({"gpusteward.dev/protect": "true"})}, "protected"),
    ],
    ids=["foreign", "unnamed", "ours", "protected"],
)
@pytest.mark.parametrize("action", ["fence", "drain"])
def test_a_cordoned_or_protected_node_is_left_as_it_is(changes: dict[str, Any], words: str, action: str) -> None:
    made = plan(with_node(fleet(NOW), **changes), [failing("n0-1", NOW, action=action)], FREE, NOW)
    assert [move for move in made.moves if rule_of(move) == "fence"] == []
    assert any(words in each.reason for each in made.held_back)


def test_the_breaker_holds_a_cause_that_shows_all_over_the_pool_and_only_that_cause() -> None:
    common = [failing(f"n{number}-0", NOW) for number in range(5)]
    made = plan(fleet(NOW, node_count=5, gpus_per_node=2), [*common, failing("n1-1", NOW, rule="ecc")], FREE, NOW)
    assert [move.cause for move in made.moves] == ["ecc"]
    assert len(made.held_back) == 5
    assert all(held.reason.startswith("breaker: 5 of 10 GPUs of pool p") for held in made.held_back)


def test_verdicts_too_weak_to_act_on_still_trip_the_breaker() -> None:
    weak = [failing(f"n{number}-0", NOW, confidence=0.1) for number in range(1, 5)]
    made = plan(fleet(NOW, node_count=5, gpus_per_node=2), [failing("n0-0", NOW), *weak], FREE, NOW)
    assert made.moves == ()


def test_one_node_alone_does_not_trip_the_breaker() -> None:
    verdicts = [failing(f"n0-{place}", NOW) for place in range(8)]
    made = plan(fleet(NOW, node_count=2, gpus_per_node=8), verdicts, FREE, NOW)
    assert [move.kind for move in made.moves] == [MoveKind.CORDON_NODE]


def test_the_worst_is_fenced_first() -> None:
    verdicts = [failing("n0-0", NOW), failing("n3-0", NOW, state="failed")]
    assert [move.target.name for move in plan(fleet(NOW), verdicts, FREE, NOW).moves] == ["n3", "n0"]


def test_duplicates_and_several_rules_for_one_gpu_give_one_move() -> None:
    verdict = failing("n0-1", NOW)
    made = plan(fleet(NOW), [verdict, verdict, failing("n0-1", NOW, rule="ecc")], FREE, NOW)
    assert len(made.moves) == 1
    assert made.held_back == ()


def test_a_newer_healthy_verdict_outweighs_an_older_failing_one() -> None:
    older = failing("n0-1", NOW - timedelta(minutes=5))
    newer = failing("n0-1", NOW, state="healthy", severity=Severity.OK, action="none", rule="all_quiet")
    assert plan(fleet(NOW), [newer, older], FREE, NOW).moves == ()


def test_a_slice_of_a_fleet_without_nodes_is_held_back() -> None:
    state = replace(fleet(NOW), nodes=(), slices=(Slice("s", "n0-1", "1g.10gb"),))
    (held,) = plan(state, [failing("n0-1", NOW)], FREE, NOW).held_back
    assert "its node n0 is not in the cluster's state" in held.reason


def test_a_share_of_one_never_cordons_by_count() -> None:
    policy = replace(FREE, fence=FencePolicy(cordon_failed_share=1.0))
    made = plan(fleet(NOW), [failing(f"n0-{place}", NOW) for place in range(4)], policy, NOW)
    assert {move.kind for move in made.moves} == {MoveKind.FENCE_GPU}
