from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from actions.breaker import causes_shared
from actions.guard import guard
from actions.plan import plan
from actions.policy import FencePolicy
from fleet.move import Move, MoveKind
from fleet.state import FleetState, ObjectRef
from fleet.verdict import Verdict
from tests.actions.fakes import FREE, failing, fleet

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
DRIVER = "nvidia.com/cuda.driver-version.full"
POLICY = replace(FREE, fence=FencePolicy(breaker_share_of_pool=0.25, breaker_share_of_group=0.5, breaker_min_gpus=4))
# each a code of its own: by its code alone none of them is common
CODES = ("xid_48", "xid_63", "xid_64", "xid_74", "xid_79", "xid_94")


def state(racks: Iterable[str | None] = (), drivers: Iterable[str] = (), *, gpus: int = 4) -> FleetState:
    """Build 8 nodes, in these racks and with these drivers, from the first on."""
    made = fleet(NOW, node_count=8, gpus_per_node=gpus)
    nodes = list(made.nodes)
    for place, rack in enumerate(racks):
        nodes[place] = replace(nodes[place], rack=rack)
    for place, driver in enumerate(drivers):
        nodes[place] = replace(nodes[place], labels={DRIVER: driver})
    return replace(made, nodes=tuple(nodes))


def failures(uuids: Iterable[str], **evidence: str) -> list[Verdict]:
    return [
        failing(uuid, NOW, rule=CODES[place % len(CODES)], evidence={"xid": 1, **evidence})
        for place, uuid in enumerate(uuids)
    ]


FIVE = ["n0-0", "n0-1", "n0-2", "n1-0", "n1-1"]


@pytest.mark.parametrize(
    ("fleet_state", "evidence", "shared"),
    [
        (state(racks=["r1", "r1"]), {}, "rack r1"),
        (state(drivers=["580.1", "580.1", *["570.2"] * 6]), {}, "driver 580.1"),
        (state(), {"driver": "580.1"}, None),
        (state(gpus=2), {"driver": "580.1"}, "driver 580.1"),
        (state(gpus=2), {"booted_at": "2026-03-02T11:40:00+00:00"}, "the boots of the hour from 2026-03-02T11:00"),
        (state(racks=["r1", "r2"]), {}, None),
        (state(racks=["r1", "r1", "r1"]), {}, None),
        (state(drivers=["580.1"] * 8), {}, None),
    ],
    ids=[
        "rack",
        "driver of a roll-out",
        "driver of few",
        "driver told",
        "boot wave",
        "two racks",
        "larger rack",
        "all",
    ],
)
def test_many_nodes_that_share_something_and_fail_at_once_are_not_fenced(
    fleet_state: FleetState, evidence: dict[str, str], shared: str | None
) -> None:
    uuids = FIVE if len(fleet_state.gpus) == 32 else ["n0-0", "n0-1", "n1-0", "n1-1", "n2-0"]
    made = plan(fleet_state, failures(uuids, **evidence), POLICY, NOW)
    reasons = {each.reason for each in made.held_back if each.reason.startswith("breaker")}
    assert any(f"share {shared}" in reason for reason in reasons) == (shared is not None)
    assert (made.moves == ()) == (shared is not None)


def test_one_node_alone_never_trips_whatever_it_shares() -> None:
    alone = plan(state(racks=["r1"], drivers=["580.1"]), failures(["n0-0", "n0-1", "n0-2", "n0-3"]), POLICY, NOW)
    assert [move.kind for move in alone.moves] == [MoveKind.CORDON_NODE]


def test_fewer_than_the_least_count_never_trip() -> None:
    few = plan(state(racks=["r1", "r1"]), failures(["n0-0", "n1-0", "n1-1"]), POLICY, NOW)
    assert few.moves != ()


def test_a_tripped_breaker_holds_only_those_that_share_the_cause() -> None:
    made = plan(state(racks=["r1", "r1", "r2"]), failures([*FIVE, "n2-0"]), POLICY, NOW)
    assert [move.gpu_uuids for move in made.moves] == [("n2-0",)]


def test_while_the_breaker_is_tripped_uncordon_and_unfence_pass() -> None:
    tripped = state(racks=["r1", "r1"])
    assert plan(tripped, failures(FIVE), POLICY, NOW).moves == ()
    node = replace(tripped.nodes[0], is_schedulable=False, cordoned_by="gpu-steward")
    out = tuple(replace(gpu, is_fenced=gpu.node == "n1") for gpu in tripped.gpus)
    later = replace(tripped, nodes=(node, *tripped.nodes[1:]), gpus=out)
    for kind, name, uuids in (
        (MoveKind.UNCORDON_NODE, "n0", ()),
        (MoveKind.UNFENCE_GPU, "n1", ("n1-0",)),
    ):
        guard(Move("m", kind, "c1", ObjectRef("Node", "", name), "xid_79", "it is well", uuids), later, POLICY, NOW)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({DRIVER: "580.65.06"}, ("driver 580.65.06",)),
        ({"nvidia.com/cuda.driver.major": "570", "nvidia.com/cuda.driver.minor": "86"}, ("driver 570.86",)),
        ({}, ()),
    ],
    ids=["full", "in parts", "unknown"],
)
def test_the_driver_is_read_off_the_labels_of_gpu_feature_discovery(
    labels: dict[str, str], expected: tuple[str, ...]
) -> None:
    assert causes_shared(failing("n0-0", NOW), replace(state().nodes[0], labels=labels)) == expected


@pytest.mark.parametrize("minutes", [0, 1, 14, 29, 30])
def test_boots_half_an_hour_apart_always_share_a_wave(minutes: int) -> None:
    for start in range(60):
        first = NOW + timedelta(minutes=start)
        waves = [
            set(causes_shared(failing("n0-0", NOW, evidence={"booted_at": at.isoformat()}), state().nodes[0]))
            for at in (first, first + timedelta(minutes=minutes))
        ]
        assert waves[0] & waves[1]


def test_a_boot_that_is_no_time_is_no_cause() -> None:
    assert causes_shared(failing("n0-0", NOW, evidence={"booted_at": "lately"}), state().nodes[0]) == ()
