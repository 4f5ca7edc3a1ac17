from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from actions.apply import apply, groups_of
from actions.budget import Made, made_of
from actions.plan import plan
from actions.policy import ActionPolicy, Modes
from actions.restart import settle, unfinished
from fleet.approval import Approval
from fleet.clock import FixedClock
from fleet.errors import SourceFailed, StoreFull
from fleet.move import Move, Outcome, Plan, Stage
from fleet.state import FleetState
from fleet.verdict import Verdict
from tests.actions.fakes import (
    FREE,
    WIDE,
    FakeCluster,
    agreed,
    demand,
    failing,
    fleet,
    idle,
    quota,
    without_versions,
    workload,
)

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=2)
STATE = fleet(
    NOW,
    workloads=[workload("train", ["n1-0"], LONG_AGO), workload("serve", ["n2-0"], LONG_AGO)],
    quotas=[quota("a", 20.0), quota("b", 4.0)],
)
VERDICTS = [
    failing("n0-0", NOW),
    failing("n0-1", NOW),
    idle("train", NOW),
    idle("serve", NOW),
    demand("a", NOW, 1, 2),
    demand("b", NOW, 6, 7),
]


class World:
    """A cluster with its clock and its audit."""

    def __init__(self, state: FleetState = STATE, verdicts: Iterable[Verdict] = VERDICTS) -> None:
        self.clock = FixedClock(NOW)
        self.cluster = FakeCluster(state, self.clock)
        self.plan = plan(state, list(verdicts), FREE, NOW)
        self.audit: list[Outcome] = []
        self.is_stopped = False

    def run(
        self,
        made: Plan | None = None,
        *,
        policy: ActionPolicy = FREE,
        dry: bool = False,
        approvals: Iterable[Approval] = (),
        recent: tuple[Made, ...] = (),
    ) -> list[Outcome]:
        return apply(
            made or self.plan,
            self.cluster,
            policy,
            self.clock,
            self.audit.append,
            actor="test",
            kill_switch=lambda: self.is_stopped,
            is_dry_run=dry,
            approvals=approvals,
            recent=recent,
        )

    def stages(self, name: str) -> list[str]:
        ids = {move.move_id for move in self.plan.moves if move.target.name == name}
        return [outcome.stage.value for outcome in self.audit if outcome.move_id in ids]


def test_every_move_is_recorded_before_and_after_it_is_made() -> None:
    world = World()
    order: list[str] = []
    world.cluster.before_make = lambda _: order.append(f"make after {world.audit[-1].stage.value}")
    outcomes = world.run()
    assert outcomes == world.audit
    assert order == ["make after intended"] * 6
    assert [outcome.stage.value for outcome in outcomes] == ["intended", "applied"] * 6
    assert [outcome.prior for outcome in outcomes if outcome.stage is Stage.APPLIED][2] is not None
    shown = {each.ref.name: (each.is_suspended, each.suspended_by) for each in world.cluster.state.workloads}
    assert shown == {"train": (True, "gpu-steward"), "serve": (True, "gpu-steward")}
    assert sum(each.gpus for each in world.cluster.state.quotas) == 24.0


def test_a_dry_run_changes_nothing_and_says_so() -> None:
    world = World()
    outcomes = world.run(dry=True)
    assert world.cluster.state == STATE
    assert world.cluster.made == []
    assert [(each.stage, each.is_dry_run) for each in outcomes] == [(Stage.APPLIED, True)] * 6
    assert made_of(world.plan.moves, outcomes) == ()


def test_dry_is_the_default() -> None:
    world = World()
    apply(
        world.plan,
        world.cluster,
        FREE,
        world.clock,
        world.audit.append,
        actor="test",
        kill_switch=lambda: False,
    )
    assert world.cluster.made == []


def test_a_dry_run_spends_the_budget_as_a_run_would() -> None:
    world = World(verdicts=VERDICTS[2:4])
    policy = replace(FREE, budget=replace(WIDE, max_gpus_per_hour=1))
    dry = [outcome.stage for outcome in world.run(policy=policy, dry=True)]
    assert dry == [Stage.APPLIED, Stage.REFUSED]


def test_a_budget_exhausted_in_the_middle_of_a_plan_stops_the_rest() -> None:
    world = World(verdicts=VERDICTS[2:4])
    world.run(policy=replace(FREE, budget=replace(WIDE, max_gpus_per_hour=1)))
    assert [outcome.stage.value for outcome in world.audit] == ["intended", "applied", "refused"]
    assert "budget" in world.audit[-1].detail


def test_two_gpus_of_one_node_are_fenced_though_the_first_changes_the_node() -> None:
    world = World(verdicts=VERDICTS[:2])
    world.run()
    assert [gpu.uuid for gpu in world.cluster.state.gpus if gpu.is_fenced] == ["n0-0", "n0-1"]


def test_a_foreign_change_between_two_gpus_of_one_node_is_noticed() -> None:
    world = World(verdicts=VERDICTS[:2])
    looks: list[int] = []

    def touch(_: Move) -> None:
        looks.append(1)

    world.cluster.after_make = touch
    seen = world.cluster.observe

    def observe() -> FleetState:
        state = seen()
        if len(looks) == 1:  # after the first move was made and seen
            looks.append(1)
            world.cluster.set_node("n0")
        return state

    world.cluster.observe = observe  # type: ignore[method-assign]  # a disturber in the fake's place
    world.run()
    assert [gpu.uuid for gpu in world.cluster.state.gpus if gpu.is_fenced] == ["n0-0"]
    assert "planned against" in world.audit[-1].detail


def protect(cluster: FakeCluster) -> None:
    cluster.set_workload("train", is_protected=True)


def remove(cluster: FakeCluster) -> None:
    kept = tuple(each for each in cluster.state.workloads if each.ref.name != "train")
    cluster.state = replace(cluster.state, workloads=kept)


def touch(cluster: FakeCluster) -> None:
    cluster.set_workload("train", replicas=3)


def refuse(cluster: FakeCluster) -> None:
    cluster.refused.add("train")


@pytest.mark.parametrize(
    ("disturb", "words"),
    [(protect, "protected"), (remove, "gone"), (touch, "planned against"), (refuse, "403")],
    ids=["protected since", "target gone", "stale", "server says no"],
)
def test_a_move_that_is_refused_stops_no_other(disturb: Callable[[FakeCluster], None], words: str) -> None:
    world = World()
    disturb(world.cluster)
    world.run()
    assert world.stages("train") == ["refused"]
    assert world.stages("serve") == ["intended", "applied"]
    assert any(words in outcome.detail for outcome in world.audit)


def test_a_server_that_says_no_at_the_last_moment_is_recorded_as_refused() -> None:
    world = World()
    world.cluster.before_make = lambda move: world.cluster.refused.add("train") if move.target.name == "train" else None
    world.run()
    assert world.stages("train") == ["intended", "refused"]
    assert unfinished(world.plan.moves, world.audit) == ()


def test_no_answer_is_recorded_as_failed_and_stays_unfinished() -> None:
    world = World()
    world.cluster.broken.add("train")
    world.run()
    assert world.stages("train") == ["intended", "failed"]
    assert [each.move.target.name for each in unfinished(world.plan.moves, world.audit)] == ["train"]
    settle(world.plan.moves, world.audit, world.cluster, world.clock, world.audit.append, actor="test")
    assert "never made" in world.audit[-1].detail
    assert unfinished(world.plan.moves, world.audit) == ()


def test_a_change_that_the_cluster_does_not_show_is_not_called_applied() -> None:
    world = World(verdicts=VERDICTS[2:3])
    world.cluster.after_make = lambda _: world.cluster.set_workload("train", is_suspended=False)
    world.run()
    assert world.stages("train") == ["intended", "failed"]
    assert "the cluster shows" in world.audit[-1].detail


def test_a_cluster_that_can_not_be_seen_makes_nothing() -> None:
    world = World()
    world.cluster.is_blind = True
    world.run()
    assert world.cluster.made == []
    assert {outcome.stage for outcome in world.audit} == {Stage.REFUSED}


def test_a_cluster_lost_after_the_change_leaves_the_move_unfinished_with_its_prior() -> None:
    world = World(verdicts=VERDICTS[2:3])
    world.cluster.blind_after_make = True
    world.run()
    (open_end,) = unfinished(world.plan.moves, world.audit)
    assert open_end.prior is not None
    world.cluster.is_blind = False
    settle(world.plan.moves, world.audit, world.cluster, world.clock, world.audit.append, actor="test")
    assert world.audit[-1].stage is Stage.APPLIED
    assert world.audit[-1].prior == open_end.prior


def test_the_kill_switch_thrown_in_the_middle_stops_the_rest() -> None:
    world = World()

    def throw(_: Move) -> None:
        world.is_stopped = True

    world.cluster.after_make = throw
    world.run()
    assert len(world.cluster.made) == 1
    assert next(each.detail for each in world.audit if each.stage is Stage.REFUSED) == "the kill switch is on"


def test_what_is_only_proposed_waits_for_its_approval() -> None:
    policy = replace(FREE, modes=Modes())
    world = World(verdicts=VERDICTS[2:4])
    world.run(policy=policy)
    assert world.cluster.made == []
    world.run(policy=policy, approvals=agreed(world.plan, NOW, only=[world.plan.moves[0].move_id]))
    assert len(world.cluster.made) == 1
    world.run(policy=policy, approvals=agreed(world.plan, NOW))
    assert len(world.cluster.made) == 2


def test_a_plan_applied_twice_makes_nothing_twice_and_says_so() -> None:
    world = World()
    world.run()
    state = world.cluster.state
    again = world.run(recent=made_of(world.plan.moves, world.audit))
    assert world.cluster.state == state
    assert {outcome.detail for outcome in again} == {"skipped: already applied"}
    without_memory = world.run()
    assert world.cluster.state == state
    assert {outcome.stage for outcome in without_memory} == {Stage.REFUSED}
    assert len(made_of(world.plan.moves, world.audit)) == 6


def test_what_others_set_back_to_what_it_was_is_made_once_more() -> None:
    world = World()
    world.run()
    world.cluster.state, done = STATE, world.cluster.state
    assert done != STATE
    made = made_of(world.plan.moves, world.audit)
    again = world.run(recent=made)
    assert {outcome.detail for outcome in again if outcome.stage is Stage.APPLIED} == {"made and seen"}
    assert world.cluster.state == done


def test_a_move_of_another_cluster_is_refused() -> None:
    world = World()
    elsewhere = tuple(replace(node, cluster="c2") for node in STATE.nodes)
    world.cluster = FakeCluster(FleetState(NOW, nodes=elsewhere), world.clock, name="c2")
    world.run()
    assert world.cluster.made == []


def test_what_another_cluster_left_unfinished_is_not_settled_here() -> None:
    world = World()
    begun = Outcome(world.plan.moves[0].move_id, NOW, Stage.INTENDED, is_dry_run=False, actor="test", prior="{}")
    elsewhere = tuple(replace(node, cluster="c2") for node in STATE.nodes)
    cluster = FakeCluster(FleetState(NOW, nodes=elsewhere), world.clock, name="c2")
    assert settle(world.plan.moves, [begun], cluster, world.clock, world.audit.append, actor="test") == []


@pytest.mark.parametrize("survivors", range(12))
def test_a_crash_after_any_record_is_settled_from_the_record_alone(survivors: int) -> None:
    world = World()

    def record(outcome: Outcome) -> None:
        if len(world.audit) == survivors:
            message = "no space left"
            raise StoreFull(message)
        world.audit.append(outcome)

    with pytest.raises(StoreFull):
        apply(
            world.plan,
            world.cluster,
            FREE,
            world.clock,
            record,
            actor="test",
            kill_switch=lambda: False,
            is_dry_run=False,
        )
    settle(world.plan.moves, world.audit, world.cluster, world.clock, world.audit.append, actor="test")
    assert unfinished(world.plan.moves, world.audit) == ()
    known = {made.move.move_id for made in made_of(world.plan.moves, world.audit)}
    assert known == {move.move_id for move in world.cluster.made}
    world.run(recent=made_of(world.plan.moves, world.audit))
    # two fences share a node: a new process does not know which version the first one left, so it plans anew
    world.run(plan(world.cluster.observe(), VERDICTS[:2], FREE, world.clock.now()))
    in_one_go = World()
    in_one_go.run()
    assert without_versions(world.cluster.state) == without_versions(in_one_go.cluster.state)
    assert len(world.cluster.made) == 6


def test_quotas_of_one_pool_are_made_whole_or_not_at_all() -> None:
    world = World(verdicts=VERDICTS[4:])
    world.cluster.before_make = lambda move: world.cluster.refused.add("b") if move.target.name == "b" else None
    world.run()
    assert without_versions(world.cluster.state) == without_versions(STATE)
    assert world.stages("a") == ["intended", "applied", "failed", "undone"]
    assert world.stages("b") == ["intended", "refused"]


def test_a_quota_refused_in_rehearsal_leaves_its_partner_untouched() -> None:
    world = World(verdicts=VERDICTS[4:])
    world.cluster.refused.add("b")
    world.run()
    assert world.cluster.state == STATE
    assert "belongs to Quota/b" in world.audit[1].detail


def lose_the_answer(world: World) -> None:
    def after(move: Move) -> None:
        if move.target.name == "b":
            message = "time-out after the change"
            raise SourceFailed(message)

    world.cluster.after_make = after


def lose_the_request(world: World) -> None:
    world.cluster.broken.add("b")


def lose_sight(world: World) -> None:
    def after(move: Move) -> None:
        world.cluster.is_blind = move.target.name == "b"

    world.cluster.after_make = after


@pytest.mark.parametrize(
    ("disturb", "first", "sum_after"),
    [
        (lose_the_answer, ["intended", "applied"], 24.0),
        (lose_the_request, ["intended", "applied", "failed", "undone"], 24.0),
        (lose_sight, ["intended", "applied"], 24.0),
    ],
    ids=["answer lost", "request lost", "sight lost"],
)
def test_a_pool_never_promises_more_than_it_has_when_an_answer_is_lost(
    disturb: Callable[[World], None], first: list[str], sum_after: float
) -> None:
    world = World(verdicts=VERDICTS[4:])
    disturb(world)
    world.run()
    assert world.stages("a") == first
    assert world.stages("b") == ["intended", "failed"]
    assert sum(each.gpus for each in world.cluster.state.quotas) == sum_after
    world.cluster.is_blind = False
    settle(world.plan.moves, world.audit, world.cluster, world.clock, world.audit.append, actor="test")
    shown = {made.move.target.name for made in made_of(world.plan.moves, world.audit) if not made.is_undone}
    assert shown == ({"a", "b"} if len(first) == 2 else set())


def test_quotas_go_together_and_all_else_alone() -> None:
    world = World()
    assert [len(group) for group in groups_of(world.plan.moves)] == [1, 1, 1, 1, 2]
