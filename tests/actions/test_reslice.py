"""The rule that cuts GPUs anew: the recorded procedure in a closed loop, and every way back out of it."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from actions.policy import ActionPolicy
from actions.rule_policies import ReslicePolicy
from analytics.slice_demand import CutNode, judge_slices
from fleet.mig_geometry import board_of
from fleet.move import Move, MoveKind
from fleet.state import Node, ObjectRef
from fleet.verdict import Verdict
from simulator.care_spec import CareSpec
from simulator.faults_spec import FaultSpec
from simulator.observe import observe
from simulator.presets import default_spec
from simulator.spec import FleetSpec
from simulator.world import World
from tests.actions.closed_loop import ALL_AUTO, Loop, kinds

HOUR = timedelta(hours=1)
POLICY = replace(ALL_AUTO, reslice=ReslicePolicy(cooldown_h=2.0, drain_limit_h=1.0, limit_h=0.5))
PROCEDURE = ["cordon_node", "drain_node", "set_mig_layout", "cancel_drain", "uncordon_node"]
FAILED = ["cordon_node", "drain_node", "set_mig_layout", "set_mig_layout", "cancel_drain", "uncordon_node"]


def spec_of(*, protected: float = 0.0, **changes: Any) -> FleetSpec:
    plain = default_spec(48, 1.0)
    spaces = tuple(
        replace(each, protected_share=protected, slice_profiles=("3g.40gb",), slice_share=1.0, notebook=1.0,
                training=0.0, batch=0.0, pools=("a100-mig",))
        if each.name == "research" else replace(each, protected_share=protected)
        for each in plain.workspaces
    )  # fmt: skip
    return replace(plain, workspaces=spaces, faults=FaultSpec(rate_factor=0.0), **changes)


def judged(world: World) -> list[Verdict]:
    """Judge how the simulated nodes are cut by what runs on them and what waits."""
    state = observe(world)
    held: dict[str, dict[str, int]] = {}
    profiles = {each.uuid: each.profile for each in state.slices}
    for pod in state.pods:
        for uuid in pod.slice_uuids:
            mine = held.setdefault(pod.node, {})
            mine[profiles[uuid]] = mine.get(profiles[uuid], 0) + 1
    waiting: dict[str, dict[str, int]] = {}
    for queue in world.waiting.values():
        for index in queue:
            owner = world.workloads[world.tasks[index].workload]
            if owner.profile is not None:
                here = waiting.setdefault(world.spec.clusters[owner.cluster].name, {})
                here[owner.profile] = here.get(owner.profile, 0) + owner.width
    nodes = []
    for node in state.nodes:
        mine_gpus = [gpu for gpu in state.gpus if gpu.node == node.name]
        board = board_of(mine_gpus[0].model, mine_gpus[0].memory_mib)
        if node.mig_layout is not None and board is not None:
            given = {
                name.removeprefix("nvidia.com/mig-"): count // len(mine_gpus) for name, count in node.slots.items()
            }
            nodes.append(CutNode(node.cluster, node.name, board, len(mine_gpus), node.mig_layout, given,
                                 held.get(node.name, {}), world.now))  # fmt: skip
    return judge_slices(nodes, waiting, world.now)


def _first_verdict() -> Verdict:
    board = board_of("NVIDIA A100-SXM4-80GB", None)
    assert board is not None
    node = CutNode("west", "n", board, 8, "all-1g.10gb", {"1g.10gb": 7}, {})
    (verdict,) = judge_slices([node], {"west": {"3g.40gb": 16}}, ORIGIN)
    return verdict


ORIGIN = default_spec(48, 1.0).starts_at
_WANTED = _first_verdict()


def always(layout: str) -> Any:
    def judge(world: World) -> list[Verdict]:
        return [
            replace(_WANTED, made_at=world.now, until=world.now, subject=node.name, cluster=node.cluster,
                    evidence={**_WANTED.evidence, "layout": layout})
            for node in observe(world).nodes if node.mig_layout is not None and node.mig_layout != layout
        ]  # fmt: skip

    return judge


def loop_of(spec: FleetSpec, policy: ActionPolicy = POLICY, judge: Any = judged) -> Loop:
    loop = Loop(spec, judge, policy)
    loop.begin(2 * HOUR)
    return loop


def mig_node(loop: Loop) -> Node:
    return next(node for node in loop.state.nodes if node.mig_layout is not None)


def by_hand(kind: MoveKind, node: Node, **arguments: Any) -> Move:
    return Move(
        "theirs", kind, node.cluster, ObjectRef("Node", "", node.name), "by hand", "by hand", arguments=arguments
    )


@pytest.mark.parametrize("restarts", [False, True], ids=["running on", "restarted each turn"])
def test_a_node_is_cut_as_is_asked_and_left_so(
    restarts: bool,  # noqa: FBT001 - a table's column
) -> None:
    loop = loop_of(spec_of())
    made = loop.turns(24, restarts=restarts)
    assert kinds(made)[:5] == PROCEDURE
    assert kinds(made).count("set_mig_layout") <= 2  # once more at most: what was evicted is wanted, too
    node = mig_node(loop)
    assert (node.is_schedulable, node.drain, node.mig_state) == (True, None, "success")
    assert node.slots.get("nvidia.com/mig-3g.40gb", 0) > 0
    assert made[-6:] == [[]] * 6


def test_the_steps_are_those_of_the_recorded_procedure(data_root: Path) -> None:
    words = {
        "cordon": "cordon_node",
        "evict": "drain_node",
        "patch label": "set_mig_layout",
        "uncordon": "uncordon_node",
    }
    contracts = [json.loads(path.read_text()) for path in sorted((data_root / "mig").glob("*.json"))]
    procedures = [each["procedure"] for each in contracts if "procedure" in each]
    assert procedures
    made = kinds(loop_of(spec_of()).turns(8))
    for procedure in procedures:
        told = [kind for step in procedure for word, kind in words.items() if word in step and not (
            word == "cordon" and "uncordon" in step)]  # fmt: skip
        assert told == [kind for kind in made[:5] if kind in words.values()]


def test_a_layout_that_fails_is_taken_back_and_not_tried_again_at_once() -> None:
    loop = loop_of(spec_of(), replace(POLICY, reslice=replace(POLICY.reslice, layouts={"ours": {"3g.40gb": 1}})),
                   always("ours"))  # fmt: skip
    before = mig_node(loop)
    made = loop.turns(14)
    assert kinds(made)[:6] == FAILED
    node = mig_node(loop)
    assert (node.mig_layout, node.slots, node.is_schedulable) == (before.mig_layout, before.slots, True)
    assert kinds(made).count("cordon_node") == 1
    assert any("left alone" in each for each in loop.held())


def test_a_manager_that_does_not_answer_in_time_is_told_the_layout_of_before() -> None:
    loop = loop_of(spec_of(care=CareSpec(layout_minutes=90.0)))
    made = loop.turns(24)
    assert kinds(made)[:4] == FAILED[:4]
    assert [move.arguments.get("mig_layout") for turn in made for move in turn][2:4] == [
        made[2][0].arguments["mig_layout"], "all-1g.10gb",
    ]  # fmt: skip


@pytest.mark.parametrize("at", [MoveKind.CORDON_NODE, MoveKind.DRAIN_NODE])
def test_what_is_not_wanted_any_more_is_given_back(at: MoveKind) -> None:
    loop = loop_of(spec_of())
    while at not in {move.kind for move in loop.turn()}:
        pass
    loop.judge = always("all-7g.80gb")
    made = loop.turns(6)
    assert kinds(made)[-1] == "uncordon_node"
    assert "set_mig_layout" not in kinds(made)
    assert mig_node(loop).drain is None


def test_a_cancelled_drain_ends_it() -> None:
    loop = loop_of(spec_of())
    while MoveKind.DRAIN_NODE not in {move.kind for move in loop.turn()}:
        pass
    loop.meddle(by_hand(MoveKind.CANCEL_DRAIN, mig_node(loop)))
    assert kinds(loop.turns(8)) == ["uncordon_node"]


def test_a_node_whose_pods_may_not_be_evicted_is_given_back() -> None:
    loop = loop_of(spec_of())
    while MoveKind.CORDON_NODE not in {move.kind for move in loop.turn()}:
        pass
    # others need a longer run before anybody may evict them
    loop.policy = replace(POLICY, reclaim=replace(POLICY.reclaim, min_run_h=500.0))
    assert kinds(loop.turns(10)) == ["uncordon_node"]
    assert mig_node(loop).is_schedulable


def test_protected_work_and_another_s_cordon_are_left_alone() -> None:
    loop = loop_of(spec_of(protected=1.0))
    assert kinds(loop.turns(4)) == []
    assert any("protected by its owner" in each for each in loop.held())
    other = loop_of(spec_of())
    other.judge = always("all-3g.40gb")
    other.meddle(by_hand(MoveKind.CORDON_NODE, mig_node(other), cordoned_by="alice"))
    assert kinds(other.turns(4)) == []
    assert mig_node(other).cordoned_by == "alice"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"evidence": {**_WANTED.evidence, "layout": "all-5g.50gb"}}, "have no layout all-5g.50gb"),
        ({"evidence": {**_WANTED.evidence, "gain_gpus": 0.1}}, "at least 0.5 are asked for"),
        ({"evidence": {"gain_gpus": 3.0}}, "does not say which mig_layout is wanted"),
        ({"state": "unknown"}, "what is not known never leads to a move"),
        ({"made_at": ORIGIN - timedelta(days=1)}, "old"),
        ({"subject": "nowhere"}, "does not show this node"),
    ],
    ids=["no such layout", "little gain", "no layout", "unknown", "old", "gone"],
)
def test_a_verdict_that_is_no_ground_leads_to_nothing(changes: dict[str, Any], words: str) -> None:
    loop = loop_of(spec_of())
    node = mig_node(loop)

    def judge(world: World) -> list[Verdict]:
        plain = replace(_WANTED, made_at=world.now, until=None, subject=node.name, node=node.name, cluster=node.cluster)
        return [replace(plain, **changes)]

    loop.judge = judge
    assert kinds(loop.turns(1)) == []
    assert any(words in each for each in loop.held()), loop.held()


def test_a_time_slicing_profile_is_changed_by_the_same_steps() -> None:
    loop = loop_of(spec_of())
    node = next(each for each in loop.state.nodes if each.pool == "t4")

    def judge(world: World) -> list[Verdict]:
        if next(each for each in observe(world).nodes if each.name == node.name).sharing == "shared-4":
            return []
        return [replace(_WANTED, made_at=world.now, until=None, subject=node.name, cluster=node.cluster, action="share",
                        evidence={"sharing": "shared-4", "gain_gpus": 2.0})]  # fmt: skip

    loop.judge = judge
    made = loop.turns(10)
    assert kinds(made) == ["cordon_node", "drain_node", "set_sharing", "cancel_drain", "uncordon_node"]
    after = next(each for each in loop.state.nodes if each.name == node.name)
    assert (after.sharing, after.slots) == ("shared-4", {"nvidia.com/gpu": 32})


def sharing(node: str, profile: str, places: int) -> Any:
    def judge(world: World) -> list[Verdict]:
        found = next(each for each in observe(world).nodes if each.name == node)
        if found.sharing == profile:
            return []
        told = {"sharing": profile, "replicas": places, "gain_gpus": 2.0}
        return [replace(_WANTED, made_at=world.now, until=None, subject=node, cluster=found.cluster, action="share",
                        evidence=told)]  # fmt: skip

    return judge


@pytest.mark.parametrize("restarts", [False, True], ids=["running on", "restarted each turn"])
@pytest.mark.parametrize(("profile", "is_kept"), [("shared-4", True), ("misspelled", False)])
def test_a_profile_that_does_not_give_the_places_it_should_is_taken_back(
    profile: str,
    is_kept: bool,  # noqa: FBT001 - a table's column
    restarts: bool,  # noqa: FBT001 - likewise
) -> None:
    loop = loop_of(spec_of())
    name = next(each.name for each in loop.state.nodes if each.pool == "t4")
    loop.judge = sharing(name, profile, 4)
    made = kinds(loop.turns(12, restarts=restarts))
    sets = ["set_sharing"] if is_kept else ["set_sharing", "set_sharing"]
    assert made == ["cordon_node", "drain_node", *sets, "cancel_drain", "uncordon_node"]
    after = next(each for each in loop.state.nodes if each.name == name)
    assert (after.sharing, after.slots["nvidia.com/gpu"]) == ((profile, 32) if is_kept else (None, 8))
