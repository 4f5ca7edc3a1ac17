import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from actions.fields import agrees, fields_after, fields_of, version_of
from actions.guard import guard
from actions.index import index_of
from actions.kinds import KINDS, RULES, rule_of
from actions.policy import ActionPolicy, Modes
from actions.undo import invert
from fleet.errors import BadInput, MoveRefused, StaleState
from fleet.move import Move, MoveKind, Value
from fleet.state import FleetState, ObjectRef, OwnedObject, PoolLimit, Queue
from tests.actions.fakes import FREE, fleet, quota, workload

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
STATE = fleet(NOW, workloads=[workload("train", ["n0-0"], NOW - timedelta(days=2))], quotas=[quota("research", 8.0)])
NODE = STATE.nodes[0]
WORKLOAD = STATE.workloads[0]
LOCAL = ObjectRef("LocalQueue", "team", "team")
SPARE = ObjectRef("NodePool", "", "h100")
LIMITS = ObjectRef("LimitRange", "team", "gpus")
FULL = replace(
    STATE,
    queues=(Queue(NODE.cluster, LOCAL, "research", None, "3"),),
    pools=(PoolLimit(NODE.cluster, SPARE, 64.0, "h100", "4"),),
    objects=(OwnedObject(NODE.cluster, "v1", LIMITS, '{"spec": {"limits": []}}', "research", "5"),),
)


def move(kind: MoveKind, **arguments: Value) -> Move:
    target = {
        "gpu": ObjectRef("Node", "", NODE.name),
        "node": ObjectRef("Node", "", NODE.name),
        "workload": WORKLOAD.ref,
        "quota": ObjectRef("Quota", "", "research"),
        "queue": LOCAL,
        "pool": SPARE,
        "object": LIMITS,
    }[KINDS[kind].scope]
    uuids = ("n0-0",) if KINDS[kind].scope in {"gpu", "workload"} else ()
    return Move(
        "m1", kind, NODE.cluster, target, "test", "why", uuids, workspace="research", pool="p", arguments=arguments
    )


TOLD: dict[MoveKind, dict[str, Value]] = {
    MoveKind.TAINT_NODE: {"taint": "gpusteward.dev/failing=xid-79:NoSchedule"},
    MoveKind.UNTAINT_NODE: {"taint": "gpusteward.dev/failing=xid-79:NoSchedule"},
    MoveKind.MARK_NODE: {"mark": "GpuFailing"},
    MoveKind.REQUEST_REPAIR: {"repair": "reboot_node"},
    MoveKind.SCALE_WORKLOAD: {"replicas": 1},
    MoveKind.SET_PRIORITY_BOOST: {"priority_boost": 10},
    MoveKind.SET_QUOTA: {"gpus": 3.0, "pool": "p"},
    MoveKind.SET_QUEUE_STOP: {"stop_policy": "Hold"},
    MoveKind.SET_MIG_LAYOUT: {"mig_layout": "all-1g.10gb"},
    MoveKind.SET_SHARING: {"sharing": "shared-4"},
    MoveKind.SET_POOL_LIMIT: {"limit": 32.0},
    MoveKind.APPLY_OBJECT: {"api_version": "v1", "body": '{"spec": {"limits": [1]}}'},
    MoveKind.DELETE_OBJECT: {"api_version": "v1"},
}


@pytest.mark.parametrize("kind", list(MoveKind), ids=lambda kind: kind.value)
def test_every_kind_has_a_rule_fields_and_a_target_that_is_found(kind: MoveKind) -> None:
    made = move(kind, **TOLD.get(kind, {}))
    current = fields_of(made, index_of(FULL))
    assert rule_of(made) in RULES
    assert current is not None
    assert set(fields_after(made)) <= set(current)
    assert set(KINDS[kind].fields) <= set(current)
    assert version_of(made, index_of(FULL)) is not None


@pytest.mark.parametrize("kind", list(MoveKind), ids=lambda kind: kind.value)
def test_the_inverse_of_every_kind_leaves_the_fields_that_were_there(kind: MoveKind) -> None:
    made = move(kind, **TOLD.get(kind, {}))
    prior = dict(fields_of(made, index_of(FULL)) or {})
    for name, value in fields_after(made).items():
        if prior[name] == value:
            prior[name] = _other(value)
    inverse = invert(made, _json(prior))
    restored = fields_after(inverse)
    decisive = KINDS[kind].fields[0]
    assert inverse.evidence["undo_of"] == "m1"
    assert agrees({**prior, **restored}, {decisive: prior[decisive]})


@pytest.mark.parametrize(
    "kind", [kind for kind in TOLD if kind not in {MoveKind.UNTAINT_NODE, MoveKind.DELETE_OBJECT}], ids=str
)
def test_a_move_without_the_argument_it_needs_is_refused_by_name(kind: MoveKind) -> None:
    told = {} if kind is not MoveKind.SET_QUOTA else {"pool": "p"}
    with pytest.raises(BadInput, match="needs the argument"):
        fields_after(move(kind, **told))


def test_a_rule_that_a_move_names_goes_before_that_of_its_kind() -> None:
    assert rule_of(replace(move(MoveKind.CORDON_NODE), rule="reslice")) == "reslice"
    assert Move.from_json(replace(move(MoveKind.CORDON_NODE), rule="reslice").to_json()).rule == "reslice"


def cordoned(**changes: object) -> FleetState:
    node = replace(NODE, is_schedulable=False, cordoned_by="gpu-steward", **changes)  # type: ignore[arg-type] # fields
    return replace(FULL, nodes=(node, *FULL.nodes[1:]), pods=(), workloads=())


@pytest.mark.parametrize(
    ("kind", "state", "why"),
    [
        (MoveKind.DRAIN_NODE, FULL, "not cordoned by us"),
        (MoveKind.REQUEST_REPAIR, cordoned(), "was not drained, or its drain was cancelled"),
        (MoveKind.REQUEST_REPAIR, cordoned(drain="gpus GPU-1"), "a reboot takes all of it"),
        (MoveKind.REQUEST_REPAIR, replace(cordoned(drain="node"), pods=FULL.pods), "pods still hold its GPUs"),
        (MoveKind.SET_MIG_LAYOUT, FULL, "is not cordoned"),
        (MoveKind.SET_MIG_LAYOUT, cordoned(mig_state="pending"), "still at work"),
        (MoveKind.SET_MIG_LAYOUT, replace(cordoned(), pods=FULL.pods), "pods still hold its GPUs"),
        (MoveKind.UNCORDON_NODE, FULL, "already so"),
        (MoveKind.RESUME_WORKLOAD, FULL, "already so"),
        (MoveKind.DELETE_OBJECT, replace(FULL, objects=(replace(FULL.objects[0], owner=None),)), "is not ours"),
        (MoveKind.APPLY_OBJECT, replace(FULL, objects=(replace(FULL.objects[0], owner="x"),)), "workspace x"),
    ],
)
def test_a_move_whose_ground_is_not_prepared_is_refused_with_the_reason(
    kind: MoveKind, state: FleetState, why: str
) -> None:
    with pytest.raises(MoveRefused, match=why):
        guard(move(kind, **TOLD.get(kind, {})), state, FREE, NOW)


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        (MoveKind.DRAIN_NODE, cordoned()),
        (MoveKind.REQUEST_REPAIR, cordoned(drain="node")),
        (MoveKind.SET_MIG_LAYOUT, cordoned(mig_state="success")),
        (MoveKind.UNCORDON_NODE, cordoned()),
        (MoveKind.SET_QUEUE_STOP, FULL),
        (MoveKind.SET_POOL_LIMIT, FULL),
        (MoveKind.APPLY_OBJECT, FULL),
        (MoveKind.APPLY_OBJECT, replace(FULL, objects=())),
        (MoveKind.DELETE_OBJECT, FULL),
    ],
)
def test_a_move_whose_ground_is_prepared_passes(kind: MoveKind, state: FleetState) -> None:
    guard(move(kind, **TOLD.get(kind, {})), state, FREE, NOW)


def test_another_s_cordon_is_never_lifted() -> None:
    theirs = replace(cordoned().nodes[0], cordoned_by="alice")
    with pytest.raises(MoveRefused, match="cordoned by alice"):
        guard(move(MoveKind.UNCORDON_NODE), replace(cordoned(), nodes=(theirs,)), FREE, NOW)


def test_a_rule_that_is_off_makes_none_of_its_moves() -> None:
    policy = ActionPolicy(modes=replace(FREE.modes, pool="off"))
    with pytest.raises(MoveRefused, match="pool may not act"):
        guard(move(MoveKind.SET_POOL_LIMIT, limit=3.0), FULL, policy, NOW)
    assert Modes().of("defragment") == "observe"


def test_a_target_that_is_gone_is_stale() -> None:
    with pytest.raises(StaleState, match="is gone"):
        guard(move(MoveKind.SET_POOL_LIMIT, limit=3.0), STATE, FREE, NOW)


def _other(value: Value) -> Value:
    if isinstance(value, bool):
        return not value
    return "node" if value is None or isinstance(value, str) else value + 1


def _json(fields: dict[str, Value]) -> str:
    return json.dumps(fields)
