"""What is asked of MIG nodes against how they are cut: from rows to the layout that meets more of it."""

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.slice_demand import (
    CutNode,
    cut_nodes,
    held_slices,
    judge_slices,
    mig_nodes,
    waiting_pods,
    wanted_devices,
)
from fleet.mig_geometry import Board, board_of, is_possible
from fleet.mig_layouts import devices_of

if TYPE_CHECKING:
    from tests.analytics.conftest import Engine

NOW = datetime.fromisoformat("2026-03-02T12:00:00+00:00")


def board() -> Board:
    found = board_of("NVIDIA A100-SXM4-80GB", None)
    assert found is not None
    return found


def node(name: str = "n1", layout: str = "all-1g.10gb", held: dict[str, int] | None = None, gpus: int = 8) -> CutNode:
    return CutNode("c1", name, board(), gpus, layout, devices_of(board(), layout) or {}, held or {}, NOW)


def test_rows_of_nodes_pods_and_slices_become_what_is_cut_held_and_wanted(engine: "Engine") -> None:
    for gpu in range(2):
        engine.add_gpu(gpu, "n1", mig_enabled=True, model="NVIDIA A100-SXM4-80GB", memory_mib=81920)
        engine.add("slice", slice=gpu, uuid=f"MIG-{gpu}", gpu=gpu, profile="1g.10gb")
    engine.add_gpu(2, "n2", model="NVIDIA A100-SXM4-80GB")
    for name, ready in (("n1", True), ("n2", True)):
        engine.add("node", cluster="c1", node=name, is_ready=ready, is_schedulable=False, last_seen_at=NOW,
                   labels=json.dumps({"nvidia.com/mig.config": "all-1g.10gb"}),
                   allocatable=json.dumps({"nvidia.com/mig-1g.10gb": 14, "nvidia.com/gpu": 0}))  # fmt: skip
    engine.add_pod(0, NOW - timedelta(hours=1), slice=0, fraction=1 / 7)
    engine.add_pod(
        1, NOW - timedelta(hours=2), slice=1, fraction=1 / 7, ends_at=NOW - timedelta(hours=1), pod_uid="old"
    )
    for uid, ends_at, resources in (
        ("a", None, {"nvidia.com/mig-3g.40gb": 2}),
        ("b", None, {"nvidia.com/mig-1g.10gb.me": 1}),
        ("c", NOW - timedelta(hours=1), {"nvidia.com/mig-3g.40gb": 5}),
        ("d", None, {"nvidia.com/gpu": 1}),
    ):
        engine.add("pod", cluster="c1", pod_uid=uid, namespace="team", pod=uid, created_at=NOW - timedelta(hours=3),
                   ends_at=ends_at, resources=json.dumps(resources))  # fmt: skip
    assert wanted_devices(engine.run(waiting_pods(engine.tables, NOW))) == {"c1": {"3g.40gb": 2, "1g.10gb+me": 1}}
    (found,) = cut_nodes(engine.run(mig_nodes(engine.tables)), engine.run(held_slices(engine.tables, NOW)))
    assert (found.name, found.gpus, found.layout) == ("n1", 2, "all-1g.10gb")
    assert (found.devices, found.held) == ({"1g.10gb": 7}, {"1g.10gb": 1})


def test_a_node_that_nobody_uses_is_cut_as_is_asked() -> None:
    (verdict,) = judge_slices([node()], {"c1": {"3g.40gb": 16}}, NOW)
    assert (verdict.action, verdict.evidence["layout"]) == ("reslice", "all-3g.40gb")
    assert verdict.evidence["slots"] == {"nvidia.com/mig-3g.40gb": 16}
    assert verdict.evidence["gain_gpus"] == 8.0  # a 3g.40gb takes half of the memory


@pytest.mark.parametrize(
    ("held", "waiting"),
    [({}, {}), ({"1g.10gb": 56}, {"3g.40gb": 4}), ({}, {"1g.10gb": 100}), ({}, {"5g.50gb": 4}), ({}, {"1g.5gb": 9})],
    ids=["nothing is asked", "all is held", "it gives what is asked", "no such device", "another board's device"],
)
def test_a_node_that_could_not_meet_more_is_left_as_it_is(held: dict[str, int], waiting: dict[str, int]) -> None:
    assert judge_slices([node(held=held)], {"c1": waiting}, NOW) == []


def test_the_emptier_node_is_cut_first_and_only_as_many_as_are_needed() -> None:
    nodes = [node("busy", held={"1g.10gb": 20}), node("idle"), node("other")]
    found = judge_slices(nodes, {"c1": {"3g.40gb": 10}}, NOW)
    assert [each.subject for each in found] == ["idle"]
    more = judge_slices(nodes, {"c1": {"3g.40gb": 32}}, NOW)
    assert {each.subject for each in more} == {"idle", "other"}


def test_another_cluster_s_wants_change_nothing_here() -> None:
    assert judge_slices([node()], {"c2": {"3g.40gb": 16}}, NOW) == []


def test_a_site_s_own_layout_is_chosen_where_it_fits_best() -> None:
    ours = {"ours": {"4g.40gb": 1, "3g.40gb": 1}}
    (verdict,) = judge_slices([node()], {"c1": {"4g.40gb": 8, "3g.40gb": 8}}, NOW, ours)
    assert verdict.evidence["layout"] == "ours"


profiles = st.dictionaries(st.sampled_from(["1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"]),
                           st.integers(1, 40))  # fmt: skip


@given(profiles, st.lists(st.sampled_from(["all-1g.10gb", "all-3g.40gb", "all-balanced"]), min_size=1, max_size=3))
def test_what_was_cut_as_told_is_not_told_to_be_cut_otherwise(waiting: dict[str, int], layouts: list[str]) -> None:
    nodes = [node(f"n{place}", layout, gpus=4) for place, layout in enumerate(layouts)]
    for _ in range(12):
        found = judge_slices(nodes, {"c1": waiting}, NOW, most=1)
        if not found:
            return
        chosen = {each.subject: str(each.evidence["layout"]) for each in found}
        nodes = [node(each.name, chosen.get(each.name, each.layout), gpus=4) for each in nodes]
        assert all(is_possible(board(), each.devices) for each in nodes)
    message = f"it never comes to rest: {[each.layout for each in nodes]}"
    raise AssertionError(message)
