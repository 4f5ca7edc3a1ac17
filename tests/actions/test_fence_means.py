"""A fence tells by which means it will be made, what it takes out by that, and never takes out more."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from actions.approval import content_digest
from actions.budget import Made, Spending
from actions.explain import diff_lines
from actions.fence_means import FENCED, gpus_out
from actions.guard import guard
from actions.index import index_of
from actions.plan import plan
from actions.policy import ActionPolicy
from actions.undo import invert
from fleet.errors import MoveRefused, StaleState
from fleet.state import FleetState
from tests.actions.fakes import FREE, WIDE, failing, fleet

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
TAINT = {FENCED: "gpu:NoSchedule"}


def by(means: str | None, state: FleetState | None = None, tainted: tuple[str, ...] = ()) -> FleetState:
    """Return a fleet whose GPUs are fenced by one means, with nodes that are kept free already."""
    seen = fleet(NOW) if state is None else state
    nodes = tuple(replace(each, taints=TAINT) if each.name in tainted else each for each in seen.nodes)
    return replace(seen, gpus=tuple(replace(gpu, fence_by=means) for gpu in seen.gpus), nodes=nodes)


def size() -> int:
    return sum(gpu.node == "n0" for gpu in fleet(NOW).gpus)


@pytest.mark.parametrize(
    ("means", "gpus", "words"),
    [
        ("device_rule", 1, "this very device"),
        ("device_plugin", 1, "the device plugin of n0 takes this GPU out"),
        ("node_taint", size(), f"no new pod gets any of {size()} GPUs of n0"),
        (None, 1, "new pods no longer get this GPU"),
    ],
)
def test_a_plan_says_by_which_means_a_gpu_is_fenced_and_how_many_that_takes_out(
    means: str | None, gpus: int, words: str
) -> None:
    made = plan(by(means), [failing("n0-1", NOW)], FREE, NOW)
    (move,) = made.moves
    assert (move.gpu_uuids, move.gpus) == (("n0-1",), float(gpus))
    assert move.arguments == ({} if means is None else {"means": means})
    assert words in move.risk
    lines = diff_lines(made)
    assert f"- fence_gpu Node/n0 in c1 ({gpus} GPU{'s' if gpus > 1 else ''})" in lines
    assert (f"    by: {means}" in lines) == (means is not None)


def test_the_second_gpu_of_a_node_that_is_kept_free_takes_nothing_more_out() -> None:
    verdicts = [failing("n0-1", NOW), failing("n0-2", NOW)]
    policy = replace(FREE, fence=replace(FREE.fence, cordon_failed_share=1.0))
    first, second = plan(by("node_taint"), verdicts, policy, NOW).moves
    assert (first.gpus, second.gpus) == (float(size()), 1.0)
    (again,) = plan(by("node_taint", tainted=("n0",)), [failing("n0-3", NOW)], policy, NOW).moves
    assert again.gpus == 1.0
    guard(second, by("node_taint", tainted=("n0",)), policy, NOW)
    with pytest.raises(StaleState, match=f"would take out {size()} GPUs, and 1 were planned"):
        guard(second, by("node_taint"), policy, NOW)


@pytest.mark.parametrize(
    ("planned", "now"), [("device_rule", "node_taint"), (None, "node_taint"), ("device_plugin", None)]
)
def test_a_fence_whose_means_has_changed_since_is_planned_anew(planned: str | None, now: str | None) -> None:
    (move,) = plan(by(planned), [failing("n0-1", NOW)], FREE, NOW).moves
    guard(move, by(planned), FREE, NOW)
    with pytest.raises(StaleState, match="plan again"):
        guard(move, by(now), FREE, NOW)


def test_an_approval_of_one_gpu_does_not_cover_its_whole_node() -> None:
    one, whole = (
        plan(by(means), [failing("n0-1", NOW)], FREE, NOW).moves[0] for means in ("device_rule", "node_taint")
    )
    assert content_digest(one) != content_digest(whole)


def test_the_budget_counts_the_whole_node() -> None:
    narrow = replace(FREE, budget=replace(WIDE, max_gpus_per_hour=size() - 1))
    assert len(plan(by("device_rule"), [failing("n0-1", NOW)], narrow, NOW).moves) == 1
    (held,) = plan(by("node_taint"), [failing("n0-1", NOW)], narrow, NOW).held_back
    assert held.reason == f"budget: {size()} GPUs; {size() - 1} of {size() - 1} an hour are left"
    assert held.gpus == float(size())


def test_a_node_that_a_fence_keeps_free_counts_as_out_of_its_pool() -> None:
    share = (2 * size() - 0.5) / len(fleet(NOW).gpus)
    assert_pool(replace(FREE, budget=replace(WIDE, max_share_of_pool=share)), count=1)
    assert_pool(replace(FREE, budget=replace(WIDE, max_share_of_pool=share - 1 / len(fleet(NOW).gpus))), count=0)


def assert_pool(policy: ActionPolicy, count: int) -> None:
    made = plan(by("node_taint", tainted=("n1",)), [failing("n0-1", NOW)], policy, NOW)
    assert len(made.moves) == count
    assert all("of pool" in held.reason for held in made.held_back)


def test_a_whole_node_that_was_fenced_lately_is_spent_whole() -> None:
    (move,) = plan(by("node_taint"), [failing("n0-1", NOW)], FREE, NOW).moves
    (other,) = plan(by("node_taint"), [failing("n1-1", NOW, rule="rule_1")], FREE, NOW).moves
    tight = replace(FREE, budget=replace(WIDE, max_share_of_pool=size() / len(fleet(NOW).gpus)))
    spent = Spending((Made(move, NOW - timedelta(minutes=5)),))
    with pytest.raises(MoveRefused, match="of pool"):
        guard(other, by("node_taint"), tight, NOW, spent)
    assert gpus_out(move, index_of(by("node_taint"))) == {gpu.uuid for gpu in fleet(NOW).gpus if gpu.node == "n0"}


def test_what_is_taken_back_names_the_gpu_alone() -> None:
    (move,) = plan(by("node_taint"), [failing("n0-1", NOW)], FREE, NOW).moves
    back = invert(move, '{"is_fenced": false}')
    assert (back.gpu_uuids, dict(back.arguments)) == (("n0-1",), {})
