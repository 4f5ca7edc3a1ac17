"""Packing: what fits on nodes as they are, what a reclaim frees, and moves that make room and break none."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.packing import (
    Room,
    Tenant,
    defragment,
    freed_by,
    held_now,
    judge_packing,
    mig_devices,
    mig_leftovers,
    rooms,
    what_fits,
)

if TYPE_CHECKING:
    from tests.analytics.conftest import Engine


def tenant(name: str, *gpus: str, movable: bool = True) -> Tenant:
    return Tenant(f"team/{name}", name, f"Deployment/team/{name}", "research", gpus, movable)


def room(node: str, held: dict[str, int], *, gpus: int = 8, movable: bool = True) -> Room:
    tenants, used = [], 0
    for name, count in held.items():
        tenants.append(tenant(name, *(f"{node}-{used + place}" for place in range(count)), movable=movable))
        used += count
    return Room("c1", node, "pool", "H100", gpus, gpus - used, 0.0, tuple(tenants))


def fits(places: list[Room]) -> dict[int, tuple[int, int, int]]:
    frame = what_fits(places)
    return {row["size"]: (row["fits"], row["fits_packed"], row["stranded_gpus"]) for row in frame.iter_rows(named=True)}


def test_stranded_gpus_are_those_of_no_use_to_a_gang_of_that_size() -> None:
    places = [room("a", {"x": 5}), room("b", {"y": 3})]
    assert fits(places) == {1: (8, 8, 0), 2: (3, 4, 2), 4: (1, 2, 4), 8: (0, 1, 8)}


def test_nothing_known_fits_nowhere() -> None:
    assert what_fits([]).height == 0


def test_a_reclaim_frees_whole_nodes_and_further_gangs() -> None:
    places = [room("a", {"x": 5, "z": 3}), room("b", {"y": 3})]
    freed = freed_by(places, ["Deployment/team/x", "Deployment/team/z"])
    assert (freed.gpus, freed.nodes, freed.gangs) == (8, ("a",), {1: 8, 2: 4, 4: 2, 8: 1})
    assert freed_by(places, ["Deployment/team/y"]).gangs == {1: 3, 2: 2, 4: 1, 8: 1}
    assert freed_by(places, ["Deployment/team/nobody"]).gpus == 0


def test_a_gpu_that_another_workload_shares_is_not_freed() -> None:
    shared = Room("c1", "a", None, None, 1, 0, 0.0, (tenant("x", "g1"), tenant("y", "g1")))
    assert freed_by([shared], ["Deployment/team/x"]).gpus == 0
    assert freed_by([shared], ["Deployment/team/x", "Deployment/team/y"]).nodes == ("a",)


def test_the_cheapest_node_is_emptied_into_the_tightest_hole() -> None:
    places = [room("a", {"x": 1}), room("b", {"y": 5}), room("c", {"z": 7}), room("d", {"w": 3})]
    first, second = defragment(places)
    assert (first.pod, first.from_node, first.to_node, first.gpus, first.frees_size) == ("team/x", "a", "c", 1, 8)
    assert (second.pod, second.from_node, second.to_node) == ("team/w", "d", "b")
    assert defragment(places, most=1) == [first]


@pytest.mark.parametrize(
    "places",
    [
        pytest.param([room("a", {"x": 1}, movable=False), room("b", {"y": 7}, movable=False)], id="nobody-can-move"),
        pytest.param([room("a", {"x": 5}), room("b", {"y": 5})], id="no-hole-is-large-enough"),
        pytest.param([room("a", {"x": 1}), room("b", {})], id="a-block-is-not-broken-to-make-another"),
        pytest.param([room("a", {}), room("b", {})], id="all-free"),
        pytest.param([], id="nothing"),
    ],
)
def test_nothing_is_moved_that_frees_no_block(places: list[Room]) -> None:
    assert defragment(places) == []


def test_a_node_to_be_emptied_is_told_of_only_where_no_block_is_free(now: datetime) -> None:
    places = [room("a", {"x": 2}), room("b", {"y": 4})]
    (verdict,) = judge_packing(places, now)
    assert (verdict.subject, verdict.action, verdict.evidence["gpus"]) == ("a", "defragment", 2)
    assert [pod["pod_uid"] for pod in verdict.evidence["pods"]] == [places[0].tenants[0].pod_uid]  # type: ignore[attr-defined] # evidence is not typed
    assert judge_packing([*places, room("c", {})], now) == []
    assert judge_packing([room("a", {"x": 2}, movable=False), room("b", {"y": 4}, movable=False)], now) == []


def test_nothing_moves_between_pools() -> None:
    other = Room("c1", "b", "other", "H100", 8, 4, 0.0, (tenant("y", "b-0", "b-1", "b-2", "b-3"),))
    assert defragment([room("a", {"x": 1}), other]) == []


@given(st.lists(st.lists(st.integers(1, 4), max_size=4), min_size=1, max_size=6), st.sampled_from([2, 4, 8]))
def test_moves_never_lose_a_gang_and_always_gain_one(nodes: list[list[int]], size: int) -> None:
    places = []
    for number, sizes in enumerate(nodes):
        kept: dict[str, int] = {}
        for place, count in enumerate(sizes):
            if sum(kept.values()) + count <= 8:
                kept[f"p{number}-{place}"] = count
        places.append(room(f"n{number}", kept))
    free = {each.node: each.free for each in places}
    moves = defragment(places, size)
    for move in moves:
        free[move.from_node] += move.gpus
        free[move.to_node] -= move.gpus
        assert free[move.to_node] >= 0
    before = sum(each.free // size for each in places)
    after = sum(count // size for count in free.values())
    assert after > before if moves else after == before
    assert len({move.pod for move in moves}) == len(moves)


def test_rooms_are_read_from_who_holds_what(engine: "Engine", now: datetime) -> None:
    for gpu in range(4):
        engine.add_gpu(gpu)
    engine.add_gpu(8, "n2", mig_enabled=True)
    engine.add_gpu(9, "n3")
    engine.add("node", cluster="c1", node="n3", is_schedulable=False)
    engine.add("node", cluster="c1", node="n1", pool="p", model="H100")
    start = now - timedelta(hours=1)
    engine.add_pod(0, start, name="chat", workload_kind="Deployment")
    engine.add_pod(1, start, name="half", fraction=0.5)
    engine.add_pod(2, start, name="gone", ends_at=now)
    (place,) = rooms(engine.run(held_now(engine.tables, now)), failed=["GPU-3"])
    assert (place.node, place.pool, place.model, place.gpus, place.free, place.part_free) == (
        "n1",
        "p",
        "H100",
        3,
        1,
        0.5,
    )
    assert {each.pod: each.is_movable for each in place.tenants} == {"team/chat-0": True, "team/half-0": False}


def test_mig_waste_is_told_in_parts_of_the_gpu(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1, model="NVIDIA A100-SXM4-40GB", memory_mib=40960, mig_enabled=True)
    engine.add_gpu(2, model="Tesla T4", memory_mib=15360)
    for number in range(7):
        engine.add("slice", slice=number, uuid=f"MIG-{number}", gpu=1, profile="1g.5gb", last_seen_at=now)
    engine.add("slice", slice=99, uuid="MIG-old", gpu=1, profile="7g.40gb", last_seen_at=now - timedelta(days=9))
    frame = mig_leftovers(engine.run(mig_devices(engine.tables, now - timedelta(days=1))))
    (row,) = frame.to_dicts()
    assert (row["gpu_uuid"], row["wasted_memory"], row["wasted_compute"], row["wasted"]) == ("GPU-1", 1 / 8, 0.0, 1 / 8)
    assert mig_leftovers(pl.DataFrame(schema=dict.fromkeys(
        ("gpu_uuid", "cluster", "node", "model", "memory_mib", "profile"), pl.String()))).height == 0  # fmt: skip
