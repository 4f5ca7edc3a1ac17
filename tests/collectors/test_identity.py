"""Who held which GPU: exact intervals, whatever clocks, names and machines do."""

import json
from datetime import timedelta

import polars as pl
import pytest

from collectors.identity import join
from tests.collectors.identity_world import LATER, at, gpu, held, joined, node, pod, seen, slice_, told

TWO = [gpu(0, "GPU-0"), gpu(1, "GPU-1")]
SHARED = {"nvidia.com/gpu.replicas": "4", "nvidia.com/gpu.sharing-strategy": "time-slicing"}


def test_the_exporter_says_which_gpu_and_the_api_server_from_when_to_when() -> None:
    rows = joined(
        gpus=TWO, nodes=[node("n1", 2, gpu=2)], pods=[pod("a", "10:00", "11:00")],
        holders=[seen("a", "GPU-1", "10:00:40", "11:00:30")],
    )  # fmt: skip
    assert rows == [("uid-a", "GPU-1", None, 1.0, "10:00", "11:00")]


def test_workload_workspace_owner_and_container_come_along() -> None:
    found = join(
        told(
            gpus=TWO,
            pods=[pod("a", "10:00", owner="ada")],
            holders=[seen("a", "GPU-0", "10:01", "10:09", container="main")],
        ),
        LATER,
    ).allocations.row(0, named=True)
    assert (found["workload_kind"], found["workload"], found["workspace"], found["owner"], found["container"]) == (
        "Job", "a", "red", "ada", "main",
    )  # fmt: skip


def test_a_pod_made_again_under_its_name_is_another_pod() -> None:
    rows = joined(
        gpus=TWO, nodes=[node("n1", 2, gpu=2)],
        pods=[pod("a", "09:00", "10:00", uid="first"), pod("a", "10:01", uid="second")],
        holders=[seen("a", "GPU-0", "09:01", "10:02"), seen("a", "GPU-1", "10:01:30", "12:00")],
    )  # fmt: skip
    assert rows == [
        ("first", "GPU-0", None, 1.0, "09:00", "10:00"),
        ("second", "GPU-1", None, 1.0, "10:01", None),
    ]


def test_one_row_over_two_lives_of_a_name_is_told_of_both() -> None:
    rows = joined(
        gpus=TWO, pods=[pod("a", "09:00", "10:00", uid="first"), pod("a", "10:01", uid="second")],
        holders=[seen("a", "GPU-0", "09:01", "12:00")],
    )  # fmt: skip
    assert [row[:2] for row in rows] == [("first", "GPU-0"), ("second", "GPU-0")]


def test_the_old_label_of_a_name_does_not_give_its_gpu_to_the_next_pod() -> None:
    rows = joined(
        gpus=TWO, nodes=[node("n1", 2, gpu=2)],
        pods=[pod("a", "09:00", "10:00", uid="first"), pod("a", "10:01", uid="second")],
        holders=[seen("a", "GPU-0", "09:01", "10:02")],
    )  # fmt: skip
    assert rows == [("first", "GPU-0", None, 1.0, "09:00", "10:00")]


@pytest.mark.parametrize("minutes", [-5, 5], ids=["exporter behind", "exporter ahead"])
def test_a_clock_five_minutes_off_changes_no_interval(minutes: int) -> None:
    off = timedelta(minutes=minutes)
    sightings = [
        seen("a", gpu_uuid, start, last) | {"starts_at": at(start) + off, "last_seen_at": at(last) + off}
        for gpu_uuid, start, last in (("GPU-0", "09:00:30", "10:00"), ("GPU-1", "10:01:30", "12:00"))
    ]
    rows = joined(
        gpus=TWO, nodes=[node("n1", 2, gpu=2)], holders=sightings,
        pods=[pod("a", "09:00", "10:00", uid="first"), pod("a", "10:01", uid="second")],
    )  # fmt: skip
    assert rows == [
        ("first", "GPU-0", None, 1.0, "09:00", "10:00"),
        ("second", "GPU-1", None, 1.0, "10:01", None),
    ]


def test_a_gpu_that_moves_to_another_node_is_held_by_each_pod_in_its_time() -> None:
    rows = joined(
        gpus=[gpu(0, "GPU-0", "n2")], nodes=[node("n1", 0), node("n2", 1, gpu=1)],
        pods=[pod("a", "09:00", "10:00"), pod("b", "12:00", node="n2")],
        holders=[seen("a", "GPU-0", "09:01", "10:00"), seen("b", "GPU-0", "12:01", "13:00", node="n2")],
    )  # fmt: skip
    assert rows == [
        ("uid-a", "GPU-0", None, 1.0, "09:00", "10:00"),
        ("uid-b", "GPU-0", None, 1.0, "12:00", None),
    ]


def test_a_node_by_another_name_keeps_its_pods_on_their_gpus() -> None:
    rows = joined(
        gpus=[gpu(0, "GPU-0", "new")], pods=[pod("a", "09:00", node="old")],
        holders=[seen("a", "GPU-0", "09:01", "10:00", node="old"), seen("a", "GPU-0", "10:01", "11:00", node="new")],
    )  # fmt: skip
    assert rows == [("uid-a", "GPU-0", None, 1.0, "09:00", None)]


@pytest.mark.parametrize(
    "name", ["GPU-1", "GPU-1::3", "1", "nvidia1", "0000:3B:00.0", "00000000:3b:00.0"],
    ids=["uuid", "replica", "index", "device file", "pci", "wide pci"],
)  # fmt: skip
def test_a_gpu_is_known_by_all_its_names(name: str) -> None:
    gpus = [gpu(0, "GPU-0", pci_bus_id="00000000:1A:00.0"), gpu(1, "GPU-1", pci_bus_id="00000000:3B:00.0")]
    assert joined(gpus=gpus, pods=[pod("a", "10:00")], holders=[seen("a", name, "10:01", "10:09")]) == [
        ("uid-a", "GPU-1", None, 1.0, "10:00", None)
    ]


def test_a_gpu_that_nobody_announced_gives_no_row_and_is_told() -> None:
    made = join(told(gpus=TWO, pods=[pod("a", "10:00")], holders=[seen("a", "GPU-9", "10:01", "10:09")]), LATER)
    assert made.allocations.is_empty()
    assert {(each.place, each.example) for each in made.troubles} == {("pod", "c/ml/a"), ("holder", "GPU-9")}


MIG = [
    slice_(0, "MIG-a", 0, 7, "1g.5gb"), slice_(1, "MIG-b", 0, 8, "1g.5gb"), slice_(2, "MIG-c", 0, 1, "3g.20gb"),
    slice_(3, "GPU-0/gi1", 0, 1, "3g.20gb"),
]  # fmt: skip


def test_a_gpu_instance_is_the_mig_device_that_the_driver_calls_so() -> None:
    rows = joined(
        gpus=[gpu(0, "GPU-0", mig_enabled=True)], slices=MIG,
        pods=[pod("a", "10:00", asks={"nvidia.com/mig-3g.20gb": 1})],
        holders=[seen("a", "GPU-0", "10:01", "10:09", slice_uuid="GPU-0/gi1")],
    )  # fmt: skip
    assert rows == [("uid-a", "GPU-0", "MIG-c", round(3 / 7, 9), "10:00", None)]


def test_a_gpu_instance_that_no_driver_named_is_a_device_of_its_own() -> None:
    rows = joined(
        gpus=[gpu(0, "GPU-0", mig_enabled=True)], slices=[slice_(0, "GPU-0/gi7", 0, 7, "1g.5gb")],
        pods=[pod("a", "10:00", asks={"nvidia.com/mig-1g.5gb": 1})],
        holders=[seen("a", "GPU-0", "10:01", "10:09", slice_uuid="GPU-0/gi7")],
    )  # fmt: skip
    assert rows == [("uid-a", "GPU-0", "GPU-0/gi7", round(1 / 7, 9), "10:00", None)]


def test_a_whole_gpus_label_says_which_gpus_only_mig_device_a_pod_has() -> None:
    cut = [slice_(0, "MIG-a", 0, 7, "1g.5gb"), slice_(1, "MIG-b", 1, 7, "1g.5gb")]
    gpus = [gpu(0, "GPU-0", mig_enabled=True), gpu(1, "GPU-1", mig_enabled=True)]
    rows = joined(
        gpus=gpus, slices=cut, nodes=[node("n1", 2, {}, mig_1g__5gb=2)],
        pods=[pod("a", "10:00", asks={"nvidia.com/mig-1g.5gb": 1})], holders=[seen("a", "GPU-1", "10:01", "10:09")],
    )  # fmt: skip
    assert [row[1:3] for row in rows] == [("GPU-1", "MIG-b")]


def test_an_instance_number_that_was_given_out_again_is_the_device_of_its_time() -> None:
    cut = [
        slice_(0, "MIG-old", 0, 7, "1g.5gb", first_seen_at=at("08:00"), last_seen_at=at("09:30")),
        slice_(1, "MIG-new", 0, 7, "2g.10gb", first_seen_at=at("10:00"), last_seen_at=at("23:00")),
    ]
    rows = joined(
        gpus=[gpu(0, "GPU-0", mig_enabled=True)], slices=cut,
        pods=[
            pod("a", "09:00", "09:30", {"nvidia.com/mig-1g.5gb": 1}),
            pod("b", "10:00", None, {"nvidia.com/mig-2g.10gb": 1}),
        ],
        holders=[
            seen("a", "GPU-0", "09:01", "09:30", slice_uuid="GPU-0/gi7"),
            seen("b", "GPU-0", "10:01", "11:00", slice_uuid="GPU-0/gi7"),
        ],
    )  # fmt: skip
    assert [row[:4] for row in rows] == [
        ("uid-a", "GPU-0", "MIG-old", round(1 / 7, 9)),
        ("uid-b", "GPU-0", "MIG-new", round(2 / 7, 9)),
    ]


def test_four_pods_on_one_time_sliced_gpu_hold_a_quarter_each() -> None:
    rows = joined(
        gpus=[gpu(0, "GPU-0")], nodes=[node("n1", 1, SHARED, gpu=4)], pods=[pod(name, "10:00") for name in "abcd"],
        holders=[seen(name, "GPU-0", "10:01", "10:09") for name in "abcd"],
    )  # fmt: skip
    assert [row[3] for row in rows] == [0.25] * 4


def test_a_pod_with_two_replicas_of_a_gpu_holds_half_of_it() -> None:
    rows = joined(
        gpus=TWO, nodes=[node("n1", 2, SHARED, gpu__shared=8)],
        pods=[pod("a", "10:00", asks={"nvidia.com/gpu.shared": 2})],
        holders=[seen("a", "GPU-1", "10:01", "10:09", share_count=2)],
    )  # fmt: skip
    assert rows == [("uid-a", "GPU-1", None, 0.5, "10:00", None)]


def test_holders_of_one_claimed_gpu_share_it_evenly_while_they_share_it() -> None:
    device = json.dumps([{"pool": "n1", "device": "gpu-0", "uuid": "GPU-0", "profile": None}])
    asks: dict[str, float | None] = {"gpu.nvidia.com": 1}
    rows = joined(
        gpus=TWO,
        pods=[pod("a", "10:00", "13:00", asks, devices=device), pod("b", "11:00", "12:00", asks, devices=device)],
    )  # fmt: skip
    assert rows == [
        ("uid-a", "GPU-0", None, 1.0, "10:00", "11:00"),
        ("uid-a", "GPU-0", None, 0.5, "11:00", "12:00"),
        ("uid-b", "GPU-0", None, 0.5, "11:00", "12:00"),
        ("uid-a", "GPU-0", None, 1.0, "12:00", "13:00"),
    ]


def test_two_containers_of_a_pod_on_one_gpu_do_not_hold_it_twice() -> None:
    rows = joined(
        gpus=TWO, nodes=[node("n1", 2, gpu=2)], pods=[pod("a", "10:00")],
        holders=[seen("a", "GPU-0", "10:01", "10:09", container=name) for name in ("main", "side")],
    )  # fmt: skip
    assert [row[3] for row in rows] == [0.5, 0.5]


def test_a_whole_gpu_said_to_be_held_by_two_pods_is_shared_and_that_is_told() -> None:
    made = join(
        told(
            gpus=TWO, nodes=[node("n1", 2, gpu=2)], pods=[pod("a", "10:00", "11:00"), pod("b", "10:59:58")],
            holders=[seen("a", "GPU-0", "10:01", "11:00"), seen("b", "GPU-0", "11:01", "12:00")],
        ),
        LATER,
    )  # fmt: skip
    assert held(made) == [
        ("uid-a", "GPU-0", None, 1.0, "10:00", "10:59:58"),
        ("uid-a", "GPU-0", None, 0.5, "10:59:58", "11:00"),
        ("uid-b", "GPU-0", None, 0.5, "10:59:58", "11:00"),
        ("uid-b", "GPU-0", None, 1.0, "11:00", None),
    ]
    assert [each.place for each in made.troubles] == ["pod_allocation"]


def test_a_pod_that_holds_all_of_its_nodes_gpus_needs_nobody_to_tell_which() -> None:
    rows = joined(gpus=TWO, nodes=[node("n1", 2, gpu=2)], pods=[pod("a", "10:00", "11:00", {"nvidia.com/gpu": 2})])
    assert [row[1:] for row in rows] == [("GPU-0", None, 1.0, "10:00", "11:00"), ("GPU-1", None, 1.0, "10:00", "11:00")]


def test_what_is_left_of_a_node_is_the_pods_that_is_left() -> None:
    rows = joined(
        gpus=[*TWO, gpu(2, "GPU-2")], nodes=[node("n1", 3, gpu=3)],
        pods=[pod("a", "10:00", "12:00"), pod("b", "11:00", "13:00", {"nvidia.com/gpu": 2})],
        holders=[seen("a", "GPU-1", "10:01", "12:00")],
    )  # fmt: skip
    assert [row[:2] for row in rows] == [("uid-a", "GPU-1"), ("uid-b", "GPU-0"), ("uid-b", "GPU-2")]


def test_where_two_answers_are_left_none_is_given_and_that_is_told_once() -> None:
    world = told(gpus=TWO, nodes=[node("n1", 2, gpu=2)], pods=[pod("a", "10:00"), pod("b", "10:05")])
    made = join(world, at("10:20"))
    assert made.allocations.is_empty()
    assert [(each.kind, each.row_count, each.example) for each in made.troubles] == [("noticed", 2, "c/ml/a")]
    assert join(world, at("10:30"), since=at("10:20")).troubles == ()


@pytest.mark.parametrize(
    "nodes", [[node("n1", 8, gpu=8)], [node("n1", None)], []], ids=["six GPUs not seen", "no count", "no node"]
)
def test_nothing_is_settled_on_a_node_whose_gpus_may_not_all_be_known(nodes: list[dict[str, object]]) -> None:
    assert joined(gpus=TWO, nodes=nodes, pods=[pod("a", "10:00", asks={"nvidia.com/gpu": 2})]) == []


def test_a_pod_does_not_get_a_gpu_that_another_held_at_any_moment_of_its_life() -> None:
    rows = joined(
        gpus=TWO, nodes=[node("n1", 2, gpu=2)], pods=[pod("a", "09:00", "10:00:01"), pod("b", "10:00")],
        holders=[seen("a", "GPU-0", "09:01", "10:00")],
    )  # fmt: skip
    assert [row[:2] for row in rows] == [("uid-a", "GPU-0"), ("uid-b", "GPU-1")]


def test_on_a_shared_node_of_one_gpu_there_is_no_choice() -> None:
    rows = joined(
        gpus=[gpu(0, "GPU-0")], nodes=[node("n1", 1, SHARED, gpu=4)], pods=[pod("a", "10:00"), pod("b", "10:00")]
    )
    assert [row[1:4] for row in rows] == [("GPU-0", None, 0.25)] * 2
    two = joined(gpus=TWO, nodes=[node("n1", 2, SHARED, gpu=8)], pods=[pod("a", "10:00"), pod("b", "10:00")])
    assert two == []


def test_all_mig_devices_of_a_profile_are_the_pods_that_asks_for_that_many() -> None:
    rows = joined(
        gpus=[gpu(0, "GPU-0", mig_enabled=True)], slices=MIG, nodes=[node("n1", 1, {}, **{"mig_1g--5gb": 2})],
        pods=[pod("a", "10:00", asks={"nvidia.com/mig-1g.5gb": 2})],
    )  # fmt: skip
    assert [row[1:3] for row in rows] == [("GPU-0", "MIG-a"), ("GPU-0", "MIG-b")]


def test_where_every_gpu_is_cut_into_devices_that_are_called_gpus_a_pod_holds_a_device() -> None:
    labels = {"nvidia.com/mig.strategy": "single", "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb"}
    rows = joined(
        gpus=[gpu(0, "GPU-0", mig_enabled=True)], slices=MIG[:2], nodes=[node("n1", 1, labels, gpu=2)],
        pods=[pod("a", "10:00")], holders=[seen("a", "GPU-0", "10:01", "10:09", slice_uuid="MIG-b")],
    )  # fmt: skip
    assert rows == [("uid-a", "GPU-0", "MIG-b", round(1 / 7, 9), "10:00", None)]


def test_what_was_found_once_stays_when_nobody_tells_it_any_more() -> None:
    before = {
        "cluster": "c", "namespace": "ml", "pod": "a", "pod_uid": "uid-a", "gpu_uuid": "GPU-1", "fraction": 1.0,
        "starts_at": at("10:00"),
    }  # fmt: skip
    rows = joined(gpus=TWO, nodes=[node("n1", 2, gpu=2)], pods=[pod("a", "10:00", "11:00")], allocations=[before])
    assert rows == [("uid-a", "GPU-1", None, 1.0, "10:00", "11:00")]


def test_what_was_found_once_yields_to_who_is_told_to_hold_it() -> None:
    before = {
        "cluster": "c", "namespace": "ml", "pod": "a", "pod_uid": "uid-a", "gpu_uuid": "GPU-1", "fraction": 1.0,
        "starts_at": at("10:00"),
    }  # fmt: skip
    rows = joined(
        gpus=TWO, nodes=[node("n1", 2, gpu=2)], pods=[pod("a", "10:00"), pod("b", "10:30")], allocations=[before],
        holders=[seen("b", "GPU-1", "10:31", "10:40")],
    )  # fmt: skip
    assert [row[:2] for row in rows] == [("uid-a", "GPU-0"), ("uid-b", "GPU-1")]


def test_without_an_api_server_a_holder_is_known_from_first_to_last_sight() -> None:
    sightings = [
        seen("a", "GPU-0", "10:00", "10:30"),
        seen("a", "GPU-0", "10:35", "11:00"),
        seen("a", "GPU-0", "12:00", "12:10"),
        seen("b", "GPU-1", "22:50", "22:59"),
    ]
    assert joined(gpus=TWO, holders=sightings) == [
        ("c/ml/a", "GPU-0", None, 1.0, "10:00", "11:00"),
        ("c/ml/a", "GPU-0", None, 1.0, "12:00", "12:10"),
        ("c/ml/b", "GPU-1", None, 1.0, "22:50", None),
    ]


def test_where_the_api_server_tells_all_pods_a_stranger_on_a_gpu_holds_nothing_and_is_told() -> None:
    world = told(gpus=TWO, holders=[seen("x", "GPU-0", "10:00", "10:30")])
    made = join(type(world)(holders=world.holders, gpus=world.gpus, read_clusters=frozenset({"c"})), LATER)
    assert made.allocations.is_empty()
    assert [(each.place, each.example) for each in made.troubles] == [("holder", "c/ml/x")]


def test_a_namespace_that_changes_its_workspace_cuts_the_interval() -> None:
    members = [
        {"cluster": "c", "namespace": "ml", "workspace": "red", "starts_at": at("09:00"), "ends_at": at("11:00")},
        {"cluster": "c", "namespace": "ml", "workspace": "blue", "starts_at": at("11:00")},
    ]
    made = join(
        told(
            gpus=TWO, members=members, pods=[pod("a", "10:00", "12:00")], holders=[seen("a", "GPU-0", "10:01", "12:00")]
        ),
        LATER,
    ).allocations
    assert made.select("workspace", "starts_at", "ends_at").rows() == [
        ("red", at("10:00"), at("11:00")),
        ("blue", at("11:00"), at("12:00")),
    ]


def test_a_pod_that_waits_holds_nothing() -> None:
    assert joined(gpus=TWO, nodes=[node("n1", 2, gpu=2)], pods=[pod("a", "10:00", node=None)]) == []


def test_an_empty_world_gives_an_empty_frame() -> None:
    assert isinstance(join(told(), LATER).allocations, pl.DataFrame)
    assert joined() == []
