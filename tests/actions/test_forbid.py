"""Owners who opted out, swings back and forth, and what must pass whatever forbids: giving back."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import pytest

from actions.budget import Made, Spending
from actions.forbid import why_forbidden
from actions.guard import guard
from actions.index import index_of
from actions.kinds import KINDS
from actions.plan import plan
from actions.policy import ActionPolicy, Budget, FencePolicy
from actions.protect_policy import CooldownPolicy, ProtectPolicy
from actions.undo import invert
from actions.windows import Window
from fleet.errors import BadInput, MoveRefused
from fleet.move import Move, MoveKind, Value
from fleet.state import FleetState, ObjectRef, Queue
from tests.actions.fakes import FREE, failing, fleet, idle, quota, workload

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=2)
HOUR = timedelta(hours=1)
NOTHING: Mapping[str, Value] = MappingProxyType({})
PROTECT = {"gpusteward.dev/protect": "true"}
STATE = fleet(NOW, workloads=[workload("train", ["n0-0"], LONG_AGO)], quotas=[quota("a", 8.0)])
FROZEN = replace(
    FREE,
    windows=(Window("freeze", moves="never"),),
    budget=Budget(0, 0.0, 0.0, 0, 0.0, max_share_per_hour=0.0, max_gpus_per_cause=0),
    fence=FencePolicy(breaker_share_of_pool=0.0, breaker_share_of_group=0.0, breaker_min_gpus=1),
    cooldown=CooldownPolicy(turned_h=1000, undone_h=1000),
)


def on_node(kind: MoveKind, rule: str = "", arguments: Mapping[str, Value] = NOTHING) -> Move:
    uuids = ("n0-0",) if KINDS[kind].scope == "gpu" else tuple(f"n0-{place}" for place in range(4))
    target = ObjectRef("Node", "", "n0")
    return Move("m", kind, "c1", target, "xid_79", "why", uuids, 1.0, pool="p", arguments=arguments, rule=rule)


def with_node(**changes: object) -> FleetState:
    return replace(STATE, nodes=(replace(STATE.nodes[0], **changes), *STATE.nodes[1:]))  # type: ignore[arg-type] # fields


@pytest.mark.parametrize(
    "where", [{"labels": PROTECT}, {"annotations": PROTECT}, {}], ids=["label", "annotation", "policy"]
)
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (MoveKind.FENCE_GPU, {}),
        (MoveKind.CORDON_NODE, {}),
        (MoveKind.DRAIN_NODE, {}),
        (MoveKind.REQUEST_REPAIR, {"repair": "reboot_node"}),
        (MoveKind.SET_MIG_LAYOUT, {"mig_layout": "all-1g.10gb"}),
        (MoveKind.TAINT_NODE, {"taint": "a=b:NoSchedule"}),
    ],
    ids=lambda value: value.value if isinstance(value, MoveKind) else "",
)
def test_nothing_is_taken_from_a_node_whose_owner_opted_out(
    where: Mapping[str, object], kind: MoveKind, arguments: dict[str, Value]
) -> None:
    policy = FREE if where else replace(FREE, protect=ProtectPolicy(nodes=("n0",)))
    told = why_forbidden(on_node(kind, arguments=arguments), (), index_of(with_node(**where)), policy, NOW)
    assert told == "node n0 is protected"


@pytest.mark.parametrize("kind", [MoveKind.SUSPEND_WORKLOAD, MoveKind.SCALE_WORKLOAD, MoveKind.SET_PRIORITY_BOOST])
def test_nothing_is_taken_from_a_workload_whose_owner_opted_out(kind: MoveKind) -> None:
    state = replace(STATE, workloads=(replace(STATE.workloads[0], is_protected=True),))
    arguments: dict[str, Value] = {"replicas": 0, "priority_boost": -5}
    move = Move("m", kind, "c1", state.workloads[0].ref, "c", "why", ("n0-0",), 1.0, "research", arguments=arguments)
    assert "protected by its owner" in str(why_forbidden(move, (), index_of(state), FREE, NOW))


@pytest.mark.parametrize(
    ("protect", "words"),
    [
        (ProtectPolicy(namespaces=("team",)), "namespace team is protected"),
        (ProtectPolicy(workspaces=("research",)), "workspace research is protected"),
    ],
    ids=["namespace", "workspace"],
)
def test_protected_namespaces_and_workspaces_hold_for_every_rule(protect: ProtectPolicy, words: str) -> None:
    policy, index = replace(FREE, protect=protect), index_of(STATE)
    targets: list[tuple[MoveKind, ObjectRef, dict[str, Value]]] = [
        (MoveKind.SUSPEND_WORKLOAD, STATE.workloads[0].ref, {}),
        (MoveKind.SET_QUEUE_STOP, ObjectRef("LocalQueue", "team", "q"), {"stop_policy": "Hold"}),
        (MoveKind.APPLY_OBJECT, ObjectRef("LimitRange", "team", "l"), {"api_version": "v1", "body": "{}"}),
        (MoveKind.DELETE_OBJECT, ObjectRef("LimitRange", "team", "l"), {"api_version": "v1"}),
    ]
    for kind, target, arguments in targets:
        move = Move("m", kind, "c1", target, "c", "why", workspace="research", arguments=arguments)
        assert why_forbidden(move, (), index, policy, NOW) == words


@pytest.mark.parametrize(
    ("protect", "is_protected"),
    [
        (ProtectPolicy(), True),
        (ProtectPolicy(namespaces=("team",)), False),
        (ProtectPolicy(workspaces=("research",)), False),
    ],
    ids=["by its owner", "by its namespace", "by its workspace"],
)
def test_a_drain_that_would_evict_a_protected_pod_is_not_made(protect: ProtectPolicy, *, is_protected: bool) -> None:
    state = replace(STATE, workloads=(replace(STATE.workloads[0], is_protected=is_protected),))
    policy, index = replace(FREE, protect=protect), index_of(state)
    assert "pod team/train-0 on it is" in str(why_forbidden(on_node(MoveKind.DRAIN_NODE), (), index, policy, NOW))
    others = replace(on_node(MoveKind.DRAIN_NODE, arguments={"scope": "gpus"}), gpu_uuids=("n0-3",))
    assert why_forbidden(others, (), index, policy, NOW) is None, "its pods are not on that GPU"


@pytest.mark.parametrize(("rule", "is_held"), [("reslice", True), ("defragment", True), ("repair", False)])
def test_work_that_just_began_is_not_evicted_for_the_sake_of_order(rule: str, *, is_held: bool) -> None:
    for started_at in (NOW - timedelta(minutes=5), None):
        state = replace(STATE, pods=tuple(replace(pod, started_at=started_at) for pod in STATE.pods))
        told = why_forbidden(on_node(MoveKind.DRAIN_NODE, rule), (), index_of(state), FREE, NOW)
        assert (told is not None) == is_held
    old = replace(STATE, pods=tuple(replace(pod, started_at=LONG_AGO) for pod in STATE.pods))
    assert why_forbidden(on_node(MoveKind.DRAIN_NODE, rule), (), index_of(old), FREE, NOW) is None


def made(move: Move, hours_ago: float, **changes: object) -> Made:
    return Made(move, NOW - hours_ago * HOUR, **changes)  # type: ignore[arg-type] # fields


def undo_of(move: Move, cause: str = "undo") -> Move:
    return replace(
        move, move_id=f"undo {move.move_id}", kind=move.kind.inverse, cause=cause, evidence={"undo_of": move.move_id}
    )


@pytest.mark.parametrize(("hours", "is_held"), [(0.5, True), (0.999, True), (1.0, False), (5, False)])
def test_what_the_house_gave_back_is_not_taken_again_at_once(hours: float, *, is_held: bool) -> None:
    given = made(on_node(MoveKind.UNCORDON_NODE, "reslice"), hours)
    told = why_forbidden(on_node(MoveKind.CORDON_NODE, "reslice"), (given,), index_of(STATE), FREE, NOW)
    assert (told is not None) == is_held
    other = replace(given, move=replace(given.move, target=ObjectRef("Node", "", "n1")))
    assert why_forbidden(on_node(MoveKind.CORDON_NODE, "reslice"), (other,), index_of(STATE), FREE, NOW) is None
    assert why_forbidden(on_node(MoveKind.CORDON_NODE, "fence"), (given,), index_of(STATE), FREE, NOW) is None


def quota_to(gpus: float, before: float) -> Move:
    target = ObjectRef("Quota", "", "a")
    arguments: dict[str, Value] = {"gpus": gpus, "pool": "p", "model": None, "borrowing_gpus": None}
    evidence = {"before": {"gpus": before, "borrowing_gpus": None}}
    name = f"{before} to {gpus}"
    return Move(name, MoveKind.SET_QUOTA, "c1", target, "r", "why", arguments=arguments, evidence=evidence)


def test_a_quota_is_not_set_back_to_what_it_was_within_the_cooldown_either_way() -> None:
    index = index_of(STATE)
    for there, back in ((quota_to(10, 8), quota_to(8, 10)), (quota_to(6, 8), quota_to(8, 6))):
        assert "turn back" in str(why_forbidden(back, (made(there, 0.5),), index, FREE, NOW))
        assert why_forbidden(back, (made(there, 2),), index, FREE, NOW) is None
        assert why_forbidden(quota_to(9, 10), (made(there, 0.5),), index, FREE, NOW) is None, "that is another value"


def test_what_a_person_took_back_is_left_alone_for_a_day_unless_it_fails_anew() -> None:
    fence = on_node(MoveKind.FENCE_GPU)
    recent = (made(fence, 3, is_undone=True), made(undo_of(fence), 2))
    index = index_of(STATE)
    assert "taken back" in str(why_forbidden(fence, recent, index, FREE, NOW))
    since = {"verdict": {"since": (NOW - HOUR).isoformat()}}
    assert why_forbidden(replace(fence, evidence=since), recent, index, FREE, NOW) is None, "it failed since"
    long_ago = tuple(replace(each, at=each.at - 24 * HOUR) for each in recent)
    assert why_forbidden(fence, long_ago, index, FREE, NOW) is None
    crashed = (made(fence, 3, is_undone=True), made(undo_of(fence, "back out undo xid_79"), 2))
    assert why_forbidden(fence, crashed, index, FREE, NOW) is None, "nobody said so"
    own_run = (made(fence, 3, is_undone=True),)
    assert why_forbidden(fence, own_run, index, FREE, NOW) is None, "its group failed, and nobody said so"


GIVING = [kind for kind in MoveKind if not KINDS[kind].is_taking]


@pytest.mark.parametrize("kind", GIVING, ids=str)
def test_giving_back_passes_windows_budgets_cooldowns_and_opt_outs(kind: MoveKind) -> None:
    """Recovery is never blocked: every budget is spent, everything is frozen, all was moved a minute ago."""
    node = replace(
        STATE.nodes[0], is_schedulable=False, cordoned_by="gpu-steward", drain="node", repair="reboot_node",
        taints={"a": "b:NoSchedule"}, labels=PROTECT,
    )  # fmt: skip
    held = replace(STATE.workloads[0], is_suspended=True, suspended_by="gpu-steward")
    gpus = tuple(replace(gpu, is_fenced=gpu.uuid == "n0-0") for gpu in STATE.gpus)
    state = replace(STATE, nodes=(node, *STATE.nodes[1:]), workloads=(held,), gpus=gpus)
    told: dict[str, Value] = {"taint": "a=b:NoSchedule", "mark": "Why", "replicas": 2}
    is_node = KINDS[kind].scope in {"gpu", "node"}
    move = (
        on_node(kind, arguments=told)
        if is_node
        else Move("m", kind, "c1", held.ref, "c", "why", ("n0-0",), arguments=told)
    )
    spent = tuple(made(replace(move, kind=move.kind.inverse, gpus=1000.0), 0.01) for _ in range(3))
    if kind in {MoveKind.MARK_NODE, MoveKind.UNMARK_NODE}:  # words on a node, which its owner may forbid
        words = replace(node, labels={}, mark="Why" if kind is MoveKind.UNMARK_NODE else None)
        state = replace(state, nodes=(words, *state.nodes[1:]))
    guard(move, state, FROZEN, NOW, Spending(spent, (move,) * 3))


def test_a_queue_is_let_go_in_a_freeze_and_not_held() -> None:
    local = ObjectRef("LocalQueue", "team", "q")
    hold = Move("m", MoveKind.SET_QUEUE_STOP, "c1", local, "c", "why", arguments={"stop_policy": "Hold"})
    state = replace(STATE, queues=(Queue("c1", local, "research", "Hold", "1"),))
    assert why_forbidden(hold, (), index_of(state), FROZEN, NOW) is not None
    assert why_forbidden(replace(hold, arguments={"stop_policy": None}), (), index_of(state), FROZEN, NOW) is None


def test_an_undo_passes_everything_that_forbids() -> None:
    state = fleet(NOW, workloads=[workload("train", ["n1-0"], LONG_AGO)])
    (move,) = plan(state, [idle("train", NOW)], FREE, NOW).moves
    after = replace(state.workloads[0], is_suspended=True, suspended_by="gpu-steward", replicas=0)
    inverse = invert(move, '{"is_suspended": false, "suspended_by": null, "replicas": 2}')
    guard(inverse, replace(state, workloads=(after,)), FROZEN, NOW, Spending((), (inverse,) * 9))


@pytest.mark.parametrize("name", ["turned_h", "undone_h"])
def test_a_cooldown_that_means_nothing_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=name):
        CooldownPolicy(**{name: -1.0})


def test_the_plan_holds_back_a_whole_pool_where_one_of_its_quotas_may_not_change() -> None:
    from tests.actions.fakes import demand  # noqa: PLC0415 - the only test here that plans quotas

    state = fleet(NOW, quotas=[quota("a", 20.0), quota("b", 4.0)])
    found = [demand("a", NOW, 1, 2), demand("b", NOW, 6, 7)]
    moves = plan(state, found, FREE, NOW).moves
    assert len(moves) == 2
    policy: ActionPolicy = replace(FREE, protect=ProtectPolicy(workspaces=("b",)))
    assert plan(state, found, policy, NOW).moves == ()
    assert plan(state, [failing("n0-0", NOW)], policy, NOW).moves != ()
    with pytest.raises(MoveRefused, match="protected"):
        guard(moves[1], state, policy, NOW)
