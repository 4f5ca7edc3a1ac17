"""Every bound of the budget is the smaller of a share and a count."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from actions.budget import Made, Spending, why_no_room
from actions.index import index_of
from actions.policy import Budget
from fleet.errors import BadInput
from fleet.move import Move, MoveKind
from fleet.state import ObjectRef
from tests.actions.fakes import FREE, WIDE, fleet, workload

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=2)
# 8 nodes of 4 GPUs; workspace "research" holds 10 of them in five workloads of two
STATE = fleet(
    NOW, node_count=8, workloads=[workload(f"w{n}", [f"n{n}-0", f"n{n}-1"], LONG_AGO) for n in range(5)]
)  # fmt: skip
INDEX = index_of(STATE)


def suspend(number: int, cause: str = "all_parts_idle") -> Move:
    held = STATE.workloads[number]
    return Move(
        f"m{number}", MoveKind.SUSPEND_WORKLOAD, "c1", held.ref, cause, "why", held.gpu_uuids, 2.0, "research", pool="p"
    )


def fence(node: int, cause: str = "xid_79") -> Move:
    target = ObjectRef("Node", "", f"n{node}")
    return Move(f"f{node}", MoveKind.FENCE_GPU, "c1", target, cause, "why", (f"n{node}-3",), 1.0, pool="p")


def allowed(moves: list[Move], **bounds: float | None) -> int:
    """Return how many of the moves, one after another, have room."""
    policy = replace(FREE, budget=replace(WIDE, **bounds))  # type: ignore[arg-type]  # bounds by name
    done: list[Move] = []
    for move in moves:
        if why_no_room(move, Spending((), tuple(done)), INDEX, policy, NOW) is None:
            done.append(move)
    return len(done)


@pytest.mark.parametrize(
    ("bounds", "count"),
    [
        ({}, 5),
        ({"max_share_of_workspace": 0.6}, 3),
        ({"max_gpus_of_workspace": 4}, 2),
        ({"max_share_of_workspace": 0.6, "max_gpus_of_workspace": 4}, 2),
        ({"max_share_of_workspace": 0.2, "max_gpus_of_workspace": 4}, 1),
        ({"max_share_of_pool": 0.25}, 4),
        ({"max_gpus_of_pool": 6}, 3),
        ({"max_share_of_pool": 0.25, "max_gpus_of_pool": 6}, 3),
        ({"max_share_of_pool": 0.1, "max_gpus_of_pool": 6}, 2),
        ({"max_gpus_per_hour": 6}, 3),
        ({"max_share_per_hour": 0.25}, 4),
        ({"max_gpus_per_hour": 6, "max_share_per_hour": 0.25}, 3),
        ({"max_gpus_per_hour": 6, "max_share_per_hour": 0.1}, 2),
        ({"max_gpus_per_cause": 4}, 2),
        ({"max_share_per_cause": 0.2}, 3),
        ({"max_gpus_per_cause": 4, "max_share_per_cause": 0.2}, 2),
        ({"max_gpus_per_cause": 0}, 0),
        ({"max_share_per_hour": 0.0}, 0),
    ],
    ids=str,
)
def test_the_smaller_of_share_and_count_holds(bounds: dict[str, float], count: int) -> None:
    assert allowed([suspend(number) for number in range(5)], **bounds) == count


def test_a_cause_has_a_budget_of_its_own() -> None:
    moves = [fence(0), fence(1), fence(2, "ecc"), fence(3), fence(4, "ecc"), fence(5, "ecc")]
    assert allowed(moves, max_gpus_per_cause=2) == 4


def test_what_was_made_within_the_hour_counts_and_what_was_before_does_not() -> None:
    policy = replace(FREE, budget=replace(WIDE, max_gpus_per_cause=2))
    for minutes, room in ((59, False), (60, True)):
        spent = Spending(
            (Made(fence(0), NOW - timedelta(minutes=minutes)), Made(fence(1), NOW - timedelta(minutes=minutes)))
        )
        assert (why_no_room(fence(2), spent, INDEX, policy, NOW) is None) == room


def test_giving_back_is_never_counted_nor_limited() -> None:
    policy = replace(FREE, budget=replace(WIDE, max_gpus_per_cause=0, max_share_per_hour=0.0, max_gpus_of_pool=0))
    back = replace(fence(0), kind=MoveKind.UNFENCE_GPU)
    assert why_no_room(back, Spending((), (fence(1),) * 9), INDEX, policy, NOW) is None


@pytest.mark.parametrize(
    "bounds", [{"max_share_per_hour": 1.5}, {"max_gpus_of_pool": -1}, {"max_share_per_cause": -0.1}], ids=str
)
def test_a_bound_that_means_nothing_is_refused_by_its_name(bounds: dict[str, float]) -> None:
    (name,) = bounds
    with pytest.raises(BadInput, match=name):
        Budget(**bounds)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("share", "count", "room"), [(0.01, 8, 1), (0.34, 8, 2), (1 / 3, 8, 1), (0.0, 8, 0), (1.0, 2, 2), (0.01, 0, 0)]
)
def test_a_share_of_a_tiny_fleet_is_one_node_and_not_none_unless_it_is_nothing(
    share: float, count: int, room: int
) -> None:
    index = index_of(fleet(NOW, node_count=3, gpus_per_node=1))
    policy = replace(FREE, budget=replace(WIDE, max_share_of_nodes_per_turn=share, max_nodes_per_turn=count))
    done: list[Move] = []
    for node in range(3):
        move = replace(fence(node), gpu_uuids=(f"n{node}-0",))
        if why_no_room(move, Spending((), tuple(done)), index, policy, NOW) is None:
            done.append(move)
    assert len(done) == room


@pytest.mark.parametrize(
    "now",
    [
        datetime(2026, 3, 3, 0, 15, tzinfo=UTC),
        datetime(2026, 3, 29, 3, 15, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(2026, 10, 25, 2, 15, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    ],
    ids=["over midnight", "over the hour that summer time skips", "over the hour that comes twice"],
)
def test_an_hour_is_sixty_minutes_wherever_the_calendar_turns(now: datetime) -> None:
    policy = replace(FREE, budget=replace(WIDE, max_gpus_per_hour=1))
    for minutes, room in ((45, False), (61, True)):
        made = Made(fence(0), now.astimezone(UTC) - timedelta(minutes=minutes))
        assert (why_no_room(fence(1), Spending((made,)), INDEX, policy, now.astimezone(UTC)) is None) is room
