"""All rules at once over a fleet that breaks, idles and wants other devices: nothing swings or touches the foreign."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from actions.policy import ActionPolicy
from actions.rule_policies import DefragmentPolicy, RepairPolicy, ReslicePolicy
from fleet.move import Move, MoveKind, Stage
from fleet.state import FleetState, ObjectRef
from fleet.verdict import Verdict
from simulator.faults_spec import FaultRates, FaultSpec
from simulator.presets import default_spec
from simulator.spec import FleetSpec
from simulator.world import World
from tests.actions import test_repair, test_reslice
from tests.actions.closed_loop import ALL_AUTO, Loop
from tests.actions.test_reclaim_part import truth

POLICY = replace(
    ALL_AUTO, repair=RepairPolicy(grace_h=0.5, gang_grace_h=1.0), reslice=ReslicePolicy(), defragment=DefragmentPolicy()
)
_FENCES = {MoveKind.FENCE_GPU, MoveKind.UNFENCE_GPU}
_TAKEN = {MoveKind.CORDON_NODE, MoveKind.FENCE_GPU}
_BACK = {MoveKind.UNCORDON_NODE, MoveKind.UNFENCE_GPU}


def spec_of(seed: int) -> FleetSpec:
    plain = test_reslice.spec_of(protected=0.1)
    often = FaultSpec(rates=FaultRates(xid_79=9.0, xid_48=9.0, lost_gpu=5.0, remap_pending=9.0, boot_wave=1.0),
                      rate_factor=8.0)  # fmt: skip
    return replace(plain, seed=seed, faults=often, clusters=default_spec(64, 1.0).clusters)


def judged(world: World) -> Sequence[Verdict]:
    return [*test_repair.judged(world), *test_reslice.judged(world), *truth(world)]


def protected_pods(state: FleetState) -> set[str]:
    return {uid for each in state.workloads if each.is_protected for uid in each.pods}


def check(loop: Loop, made: Sequence[Move], before: FleetState, policy: ActionPolicy) -> None:
    after = loop.state
    foreign = {node.name for node in before.nodes if node.cordoned_by == "alice"}
    assert foreign == {node.name for node in after.nodes if node.cordoned_by == "alice"}
    assert not {move.target.name for move in made} & foreign
    failed = protected_pods(before) - protected_pods(after)
    evicted = [move for move in made if move.kind is MoveKind.DRAIN_NODE]
    on_drained = {pod.uid for pod in before.pods if pod.node in {move.target.name for move in evicted}}
    assert not failed & on_drained
    targets = [(move.cluster, move.target, move.kind, move.gpu_uuids) for move in made]
    assert len(set(targets)) == len(targets)
    recorded = {each.move_id for each in loop.outcomes if each.stage is Stage.INTENDED}
    assert {move.move_id for move in made} <= recorded
    assert policy.modes.of("fence") == "auto"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_swings_and_nothing_foreign_or_protected_is_touched(seed: int) -> None:
    loop = Loop(spec_of(seed), judged, POLICY, timedelta(minutes=30))
    loop.begin(timedelta(hours=2))
    node = loop.state.nodes[-1]
    theirs = Move("theirs", MoveKind.CORDON_NODE, node.cluster, ObjectRef("Node", "", node.name), "by hand", "by hand",
                  arguments={"cordoned_by": "alice"})  # fmt: skip
    loop.meddle(theirs)
    history: list[Move] = []
    given_back: dict[tuple[ObjectRef, tuple[str, ...]], int] = {}
    for turn in range(30):
        if turn % 7 == 3:
            loop.restart()
        made = loop.turn()
        check(loop, made, loop.seen, POLICY)
        for move in made:
            part = (move.target, move.gpu_uuids if move.kind in _FENCES else ())
            if move.kind in _BACK:
                given_back[part] = turn
            elif move.kind in _TAKEN:
                assert turn - given_back.get(part, -9) > 1, f"{move.target} was given back and taken again at once"
        history.extend(made)
    assert history
    cordons = Counter(move.target for move in history if move.kind is MoveKind.CORDON_NODE)
    assert max(cordons.values(), default=0) <= 4
