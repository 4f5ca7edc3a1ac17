"""Random fleets, verdicts, policies, disturbances: what must hold whatever happens."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from actions.apply import apply
from actions.budget import Made, made_of
from actions.plan import plan
from actions.policy import ActionPolicy, Budget, FencePolicy, RebalancePolicy, ReclaimPolicy
from actions.restart import unfinished
from actions.undo import undo_plan
from fleet.clock import FixedClock
from fleet.move import Move, MoveKind, Outcome, Plan, Stage
from fleet.state import FleetState, Workload
from fleet.verdict import Severity, Verdict
from tests.actions.fakes import (
    AUTO,
    UNASKED,
    FakeCluster,
    demand,
    failing,
    fleet,
    idle,
    part,
    quota,
    without_versions,
    workload,
)

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
Drawn = TypeVar("Drawn")

LONG_AGO = NOW - timedelta(days=3)
NODES, GPUS = 5, 4
UUIDS = [f"n{node}-{place}" for node in range(NODES) for place in range(GPUS)]
NAMES = [f"w{number}" for number in range(4)]
SPACES = ["a", "b", "c"]


def mostly(usual: Sequence[Drawn], rare: Sequence[Drawn]) -> st.SearchStrategy[Drawn]:
    """Draw what leads to moves most of the time: a property over empty plans says nothing."""
    return st.sampled_from([*(list(usual) * (1 + 5 * len(rare) // len(usual))), *rare])


moments = mostly([NOW], [NOW - timedelta(minutes=30), NOW - timedelta(hours=5), NOW + timedelta(hours=1)])
ratios = mostly([1.0], [None, 0.0, 0.5, float("nan")])


@st.composite
def workloads(draw: st.DrawFn, name: str) -> Workload:
    return workload(
        name,
        draw(st.lists(st.sampled_from(UUIDS), min_size=1, max_size=5, unique=True)),
        draw(mostly([LONG_AGO], [None, NOW - timedelta(minutes=5)])),
        is_protected=draw(mostly([False], [True])),
        is_suspended=draw(mostly([False], [True])),
        workspace=draw(st.sampled_from([*SPACES, None])),
        replicas=draw(st.integers(0, 3)),
    )


@st.composite
def states(draw: st.DrawFn) -> FleetState:
    state = fleet(
        NOW,
        node_count=NODES,
        gpus_per_node=GPUS,
        workloads=[draw(workloads(name)) for name in NAMES],
        quotas=[quota(name, float(draw(st.integers(0, 30)))) for name in SPACES],
        fenced=draw(st.lists(st.sampled_from(UUIDS), max_size=3)),
    )
    foreign = draw(st.sets(st.integers(0, NODES - 1), max_size=1))
    nodes = tuple(
        replace(node, is_schedulable=place not in foreign, cordoned_by="alice" if place in foreign else None)
        for place, node in enumerate(state.nodes)
    )
    return replace(state, nodes=nodes)


@st.composite
def verdicts(draw: st.DrawFn) -> list[Verdict]:
    made: list[Verdict] = []
    for uuid in draw(st.lists(st.sampled_from([*UUIDS, "ghost"]), min_size=2, max_size=8)):
        verdict = failing(
            uuid,
            draw(moments),
            state=draw(mostly(["failing", "failed"], ["degraded", "unknown", "healthy"])),
            severity=draw(mostly([Severity.CRITICAL], list(Severity))),
            action=draw(mostly(["fence", "reboot_node"], ["inspect", None])),
            rule=draw(st.sampled_from(["xid_79", "ecc", "clock"])),
            confidence=draw(ratios),
        )
        made.append(verdict)
    for name in draw(st.lists(st.sampled_from([*NAMES, "ghost"]), min_size=2, max_size=6)):
        state = draw(mostly(["idle", "idle_held"], ["active", "unknown"]))
        made.append(idle(name, draw(moments), state=state, coverage=draw(ratios)))
    for uuid in draw(st.lists(st.sampled_from(UUIDS), max_size=2)):
        state = draw(mostly(["idle"], ["active", "unknown"]))
        made.append(part(uuid, draw(moments), state, action=draw(st.sampled_from(["none", "reclaim"]))))
    for name in draw(st.lists(st.sampled_from(SPACES), min_size=2, max_size=4)):
        median, more = draw(st.floats(0, 30)), draw(mostly([0.0, 5.0], [None, float("nan")]))
        upper = None if more is None else median + more
        made.append(demand(name, draw(moments), median, upper))
    return made


shares = mostly([0.3, 1.0], [0.0, 0.1])
policies = st.builds(
    ActionPolicy,
    modes=st.just(AUTO),
    approval=st.just(UNASKED),
    fence=st.builds(FencePolicy, breaker_share_of_pool=shares, min_severity=st.sampled_from(["warning", "critical"])),
    reclaim=st.builds(ReclaimPolicy, protected_workspaces=st.sampled_from([(), ("a",)])),
    rebalance=st.builds(RebalancePolicy, max_churn_share=shares, headroom=mostly([0.0, 0.1], [1.0])),
    budget=st.builds(
        Budget,
        max_gpus_per_hour=mostly([8, 20], [0, 1, 3]),
        max_share_of_workspace=shares,
        max_share_of_pool=shares,
        max_nodes_per_turn=mostly([2, 5], [0, 1]),
        max_share_of_nodes_per_turn=shares,
    ),
)


def by_kind(moves: tuple[Move, ...], *kinds: MoveKind) -> list[Move]:
    return [move for move in moves if move.kind in kinds]


def check_harmless(made: Plan, state: FleetState, found: list[Verdict], policy: ActionPolicy) -> None:
    nodes = {node.name: node for node in state.nodes}
    held = {each.ref: each for each in state.workloads}
    unfit = {each.subject for each in found if each.topic == "health"}
    for move in by_kind(made.moves, MoveKind.FENCE_GPU, MoveKind.CORDON_NODE):
        assert nodes[move.target.name].is_schedulable
        assert unfit & set(move.gpu_uuids)
    for move in by_kind(made.moves, MoveKind.SUSPEND_WORKLOAD):
        target = held[move.target]
        assert not target.is_protected
        assert not target.is_suspended
        assert target.workspace not in policy.reclaim.protected_workspaces
        assert target.started_at == LONG_AGO
        mine = [each for each in found if each.workload == str(move.target)]
        assert any(each.state in {"idle", "idle_held"} and each.coverage == 1.0 for each in mine)
    counts = Counter((move.kind, move.target, move.gpu_uuids) for move in made.moves)
    assert all(count == 1 for count in counts.values())
    assert len({move.move_id for move in made.moves}) == len(made.moves)


def check_budget(moves: tuple[Move, ...], policy: ActionPolicy) -> None:
    budget = policy.budget
    taken = by_kind(moves, MoveKind.SUSPEND_WORKLOAD)
    fences = by_kind(moves, MoveKind.FENCE_GPU, MoveKind.CORDON_NODE)
    assert sum(move.gpus for move in taken) <= budget.max_gpus_per_hour
    assert sum(move.gpus for move in fences) <= budget.max_gpus_per_hour
    assert len({move.target for move in fences}) <= budget.max_nodes_per_turn
    limit = -(-NODES * GPUS * round(budget.max_share_of_pool * 10) // 10)
    assert len({uuid for move in taken for uuid in move.gpu_uuids}) <= limit
    assert len({uuid for move in fences for uuid in move.gpu_uuids}) <= limit


def total(state: FleetState) -> float:
    return sum(each.gpus for each in state.quotas)


def run(made: Plan, cluster: FakeCluster, policy: ActionPolicy, audit: list[Outcome], recent: tuple[Made, ...]) -> None:
    cluster.clock.move(timedelta(seconds=1))
    apply(
        made,
        cluster,
        policy,
        cluster.clock,
        audit.append,
        actor="test",
        kill_switch=lambda: False,
        is_dry_run=False,
        recent=recent,
    )


@settings(deadline=None, max_examples=80)
@given(states(), verdicts(), policies)
def test_a_plan_does_no_harm_and_its_undo_restores_the_world(
    state: FleetState, found: list[Verdict], policy: ActionPolicy
) -> None:
    made = plan(state, found, policy, NOW)
    assert made == plan(state, found[::-1], policy, NOW)
    check_harmless(made, state, found, policy)
    check_budget(made.moves, policy)

    cluster, audit = FakeCluster(state, FixedClock(NOW)), list[Outcome]()
    run(made, cluster, policy, audit, ())
    assert len(made_of(made.moves, audit)) == len(made.moves)
    assert total(cluster.state) == total(state)

    back = undo_plan(made.moves, audit, cluster.clock.now())
    run(back, cluster, policy, audit, made_of(made.moves, audit))
    assert without_versions(cluster.state) == without_versions(state)


@settings(deadline=None, max_examples=80)
@given(states(), verdicts(), policies, st.data())
def test_a_disturbed_world_is_never_harmed_and_always_recorded(
    state: FleetState, found: list[Verdict], policy: ActionPolicy, data: st.DataObject
) -> None:
    made = plan(state, found, policy, NOW)
    cluster, audit = FakeCluster(state, FixedClock(NOW)), list[Outcome]()
    names = sorted({move.target.name for move in made.moves})
    hurt = st.sets(st.sampled_from(names)) if names else st.just(set[str]())
    cluster.broken, cluster.refused = data.draw(hurt), data.draw(hurt)
    protected = data.draw(st.sets(st.sampled_from(NAMES)))
    for name in protected:
        cluster.set_workload(name, is_protected=True)
    disturbed = cluster.state
    run(made, cluster, policy, audit, ())

    assert {move.target.name for move in cluster.made}.isdisjoint(protected)
    check_budget(tuple(each for each in cluster.made if each.move_id in {move.move_id for move in made.moves}), policy)
    assert total(cluster.state) == total(state)
    done = {each.move_id for each in audit if each.stage is Stage.APPLIED}
    assert done == {move.move_id for move in cluster.made} & {move.move_id for move in made.moves}
    assert {each.move.target.name for each in unfinished(made.moves, audit)} <= cluster.broken

    cluster.broken, cluster.refused = set(), set()
    back = undo_plan(made.moves, audit, cluster.clock.now())
    run(back, cluster, policy, audit, made_of(made.moves, audit))
    assert without_versions(cluster.state) == without_versions(disturbed)
