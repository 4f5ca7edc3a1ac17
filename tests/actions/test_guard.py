from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import pytest

from actions.budget import Made, Spending
from actions.guard import guard
from actions.plan import plan
from actions.policy import FencePolicy, Modes, RebalancePolicy, ReclaimPolicy
from fleet.clock import FixedClock
from fleet.errors import MoveRefused, StaleState
from fleet.move import Move, MoveKind
from fleet.state import ObjectRef
from tests.actions.fakes import FREE, WIDE, FakeCluster, demand, failing, fleet, idle, quota, workload

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=2)
STATE = fleet(
    NOW,
    workloads=[workload("train", ["n1-0"], LONG_AGO)],
    quotas=[quota("a", 20.0), quota("b", 4.0)],
)
VERDICTS = [
    failing("n0-0", NOW),
    failing("n2", NOW, subject_kind="node", action="drain", rule="reboot"),
    idle("train", NOW),
    demand("a", NOW, 1, 2),
    demand("b", NOW, 9, 10),
]
MOVES = plan(STATE, VERDICTS, FREE, NOW).moves
BY_KIND = {move.kind: move for move in reversed(MOVES)}
FENCE, CORDON = BY_KIND[MoveKind.FENCE_GPU], BY_KIND[MoveKind.CORDON_NODE]
SUSPEND, QUOTA = BY_KIND[MoveKind.SUSPEND_WORKLOAD], BY_KIND[MoveKind.SET_QUOTA]


@pytest.mark.parametrize("move", MOVES, ids=[f"{move.kind.value} {move.target.name}" for move in MOVES])
def test_an_unchanged_world_lets_every_move_through(move: Move) -> None:
    guard(move, STATE, FREE, NOW)


def changed(**changes: Any) -> FakeCluster:
    cluster = FakeCluster(STATE, FixedClock(NOW))
    if "node" in changes:
        cluster.set_node(changes.pop("node"), **changes)
    elif "quota" in changes:
        cluster.set_quota(changes.pop("quota"), **changes)
    else:
        cluster.set_workload("train", **changes)
    return cluster


@pytest.mark.parametrize(
    ("move", "cluster", "error", "words"),
    [
        (SUSPEND, changed(), StaleState, "version 2, planned against 1"),
        (FENCE, changed(node="n0"), StaleState, "version 2"),
        (CORDON, changed(node="n2"), StaleState, "version 2"),
        (QUOTA, changed(quota="a"), StaleState, "version 2"),
        (SUSPEND, changed(is_protected=True), MoveRefused, "protected by its owner"),
        (SUSPEND, changed(started_at=NOW), MoveRefused, "runs for"),
        (SUSPEND, changed(is_suspended=True, suspended_by="ann"), MoveRefused, "suspended by ann"),
        (SUSPEND, changed(gpu_uuids=("n1-0", "n1-1")), StaleState, "same GPUs"),
        (FENCE, changed(node="n0", is_schedulable=False, cordoned_by="al"), MoveRefused, "cordoned by al"),
        (CORDON, changed(node="n2", is_schedulable=False, cordoned_by="al"), MoveRefused, "cordoned by al"),
        (
            CORDON,
            changed(node="n2", labels=MappingProxyType({"gpusteward.dev/protect": "true"})),
            MoveRefused,
            "protected",
        ),
        (CORDON, changed(node="n2", is_schedulable=False, cordoned_by="gpu-steward"), MoveRefused, "already so"),
        (QUOTA, changed(quota="a", gpus=QUOTA.arguments["gpus"]), MoveRefused, "already so"),
    ],
    ids=lambda value: value.kind.value if isinstance(value, Move) else (value if isinstance(value, str) else ""),
)
def test_a_world_that_changed_stops_the_move(
    move: Move, cluster: FakeCluster, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        guard(move, cluster.observe(), FREE, NOW)


@pytest.mark.parametrize("move", [FENCE, CORDON, SUSPEND, QUOTA], ids=lambda move: move.kind.value)
def test_a_target_that_is_gone_stops_the_move(move: Move) -> None:
    with pytest.raises(StaleState, match="gone"):
        guard(move, replace(STATE, gpus=(), nodes=(), workloads=(), quotas=()), FREE, NOW)


def test_a_gpu_that_moved_to_another_node_is_gone_from_here() -> None:
    gpus = tuple(replace(gpu, node="n3") if gpu.uuid == "n0-0" else gpu for gpu in STATE.gpus)
    with pytest.raises(StaleState, match="gone"):
        guard(FENCE, replace(STATE, gpus=gpus), FREE, NOW)


def test_a_node_that_gained_a_gpu_is_not_the_one_planned_for() -> None:
    extra = replace(STATE.gpus[0], uuid="new", node="n2")
    with pytest.raises(StaleState, match="same GPUs"):
        guard(CORDON, replace(STATE, gpus=(*STATE.gpus, extra)), FREE, NOW)


@pytest.mark.parametrize(
    ("policy", "move", "words"),
    [
        (replace(FREE, reclaim=ReclaimPolicy(protected_namespaces=("team",))), SUSPEND, "namespace team"),
        (replace(FREE, fence=FencePolicy(protected_nodes=("n0",))), FENCE, "node n0 is protected"),
        (replace(FREE, rebalance=RebalancePolicy(protected_workspaces=("a",))), QUOTA, "workspace a"),
        (replace(FREE, modes=Modes("auto", "off", "auto")), SUSPEND, "mode is off"),
        (replace(FREE, modes=Modes("observe", "auto", "auto")), FENCE, "mode is observe"),
        (replace(FREE, budget=replace(WIDE, max_gpus_per_hour=0)), SUSPEND, "budget"),
    ],
    ids=["namespace", "node", "workspace", "off", "observe", "budget"],
)
def test_a_policy_that_changed_since_the_plan_stops_the_move(policy: Any, move: Move, words: str) -> None:
    with pytest.raises(MoveRefused, match=words):
        guard(move, STATE, policy, NOW)


def test_what_was_spent_since_the_plan_counts() -> None:
    policy = replace(FREE, budget=replace(WIDE, max_gpus_per_hour=1))
    other = replace(SUSPEND, move_id="other")
    guard(SUSPEND, STATE, policy, NOW)
    with pytest.raises(MoveRefused, match="budget: 1 GPUs; 0 of 1"):
        guard(SUSPEND, STATE, policy, NOW, Spending((Made(other, NOW),)))


def test_the_kill_switch_stops_everything() -> None:
    for move in MOVES:
        with pytest.raises(MoveRefused, match="kill switch"):
            guard(move, STATE, FREE, NOW, is_stopped=True)


@pytest.mark.parametrize("minutes", [6, -6], ids=["old", "future"])
def test_a_state_that_is_not_fresh_is_stale(minutes: int) -> None:
    old = replace(STATE, taken_at=NOW - timedelta(minutes=minutes))
    with pytest.raises(StaleState, match="state is of"):
        guard(SUSPEND, old, FREE, NOW)


def test_a_plan_left_lying_is_not_made_on_its_old_evidence() -> None:
    later = NOW + timedelta(hours=2)
    fresh = replace(STATE, taken_at=later)
    with pytest.raises(StaleState, match="plan again"):
        guard(SUSPEND, fresh, FREE, later)


def test_a_drain_that_has_pods_left_goes_on_and_one_that_is_over_is_already_so() -> None:
    drained = {"is_schedulable": False, "cordoned_by": "gpu-steward"}
    cluster = changed(node="n0", drain="node", **drained)
    move = replace(CORDON, kind=MoveKind.DRAIN_NODE, target=ObjectRef("Node", "", "n0"), resource_version="",
                   arguments={"scope": "node"}, evidence={})  # fmt: skip
    assert [pod.node for pod in cluster.observe().pods] == ["n0"]
    guard(move, cluster.observe(), FREE, NOW)
    cluster.state = replace(cluster.state, pods=())
    with pytest.raises(MoveRefused, match="already so"):
        guard(move, cluster.observe(), FREE, NOW)
    of_gpus = replace(move, arguments={"scope": "gpus"}, gpu_uuids=("n0-1",))
    busy = changed(node="n0", drain="gpus n0-1", **drained).observe()
    with pytest.raises(MoveRefused, match="already so"):
        guard(of_gpus, busy, FREE, NOW)
