"""MIG: which sets of devices are possible, what they leave unusable, and which profile is the smallest that does."""

import json
from pathlib import Path
from typing import Any

import pytest

from analytics.sizes import Size, smaller_size
from fleet.mig_geometry import Board, Leftover, board_of, is_possible, leftover, part_of, smallest_profile


def board(name: str, memory_mib: int | None = None) -> Board:
    found = board_of(name, memory_mib)
    assert found is not None
    return found


def tables(root: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((root / "mig").glob("profiles*.json"))]


@pytest.mark.parametrize(
    ("model", "memory_mib", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", 81920, "A100-80GB"),
        ("NVIDIA A100-SXM4-40GB", None, "A100-40GB"),
        ("A100-PCIE-40GB", 40536, "A100-40GB"),
        ("NVIDIA H100 80GB HBM3", 81559, "H100-80GB"),
        ("NVIDIA H100 NVL", 95830, "H100-94GB"),
        ("NVIDIA H200", 143771, "H200-141GB"),
        ("NVIDIA A30", 24576, "A30-24GB"),
    ],
)
def test_a_board_is_known_by_its_name_and_memory(model: str, memory_mib: int | None, name: str) -> None:
    assert board(model, memory_mib).name == name


@pytest.mark.parametrize(
    ("model", "memory_mib"),
    [
        ("Tesla T4", 15360),
        ("NVIDIA L40S", 46068),
        (None, 81920),
        ("", None),
        ("NVIDIA H100", 40000),
        ("NVIDIA H100", None),
    ],
)
def test_what_cannot_be_cut_or_told_apart_is_no_board(model: str | None, memory_mib: int | None) -> None:
    assert board_of(model, memory_mib) is None


def test_recorded_sets_are_possible_where_the_record_says_so(data_root: Path) -> None:
    cases = [case for table in tables(data_root) for case in table["validity"]]
    assert cases
    wrong = [
        case["name"] for case in cases if is_possible(board(case["gpu"]), dict(case["config"] or {})) != case["valid"]
    ]
    assert wrong == []


def test_recorded_profiles_have_our_sizes_and_limits(data_root: Path) -> None:
    compared = 0
    for table in tables(data_root):
        for name, profiles in table["profiles"].items():
            known = board_of(name, None)
            for recorded in profiles if known is not None else ():
                ours = known.profile(recorded["name"]) if known is not None else None
                if ours is not None:
                    compared += 1
                    assert (ours.compute_slices, ours.memory_gib, ours.most) == (
                        recorded["g"], recorded["gb"], recorded["max"],
                    ), f"{name} {recorded['name']}"  # fmt: skip
    assert compared > 20


def test_recorded_balanced_sets_are_possible_and_waste_nothing_of_compute(data_root: Path) -> None:
    for table in tables(data_root):
        for name, devices in table["all_balanced"].items():
            known = board_of(name, None)
            if known is not None:
                assert is_possible(known, devices), name
                assert leftover(known, devices).wasted_compute == 0, name


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        pytest.param({}, Leftover(7, 8, 0, 0), id="nothing-cut"),
        pytest.param({"1g.5gb": 7}, Leftover(0, 1, 0, 1), id="seven-small-ones-strand-a-memory-slice"),
        pytest.param({"3g.20gb": 2}, Leftover(1, 0, 1, 0), id="two-halves-strand-a-compute-slice"),
        pytest.param({"3g.20gb": 1, "1g.5gb": 4}, Leftover(0, 0, 0, 0), id="nothing-left"),
        pytest.param({"2g.10gb": 3}, Leftover(1, 2, 0, 0), id="a-double-memory-slice-still-fits"),
        pytest.param({"1g.5gb": 6}, Leftover(1, 2, 0, 0), id="one-can-still-be-cut"),
        pytest.param({"mig-4g.20gb": 1}, Leftover(3, 4, 0, 0), id="named-as-a-resource"),
    ],
)
def test_what_a_set_leaves(devices: dict[str, int], expected: Leftover) -> None:
    assert leftover(board("A100-SXM4-40GB"), devices) == expected


@pytest.mark.parametrize(
    ("memory_mib", "share", "name"),
    [
        (4000, 0.1, "1g.5gb"),
        (9000, 0.1, "1g.10gb"),
        (9000, 0.2, "2g.10gb"),
        (9000, 0.5, "4g.20gb"),
        (30_000, 0.1, None),
    ],
)
def test_the_smallest_profile_that_does(memory_mib: float, share: float, name: str | None) -> None:
    found = smallest_profile(board("A100-SXM4-40GB"), memory_mib, share)
    assert (None if found is None else found.name) == name


def test_a_part_is_the_greater_of_compute_and_memory() -> None:
    a100 = board("A100-SXM4-40GB")
    small, wide = a100.profile("1g.5gb"), a100.profile("1g.10gb")
    assert small is not None
    assert wide is not None
    assert part_of(a100, small) == pytest.approx(1 / 7)
    assert part_of(a100, wide) == pytest.approx(2 / 8)


@pytest.mark.parametrize(
    ("total_mib", "memory_mib", "activity", "size"),
    [
        pytest.param(16_000, 3000, 0.1, Size("time_slicing", "1/4", 0.25), id="at-most-four-share"),
        pytest.param(16_000, 7000, 0.1, Size("time_slicing", "1/2", 0.5), id="memory-for-two"),
        pytest.param(16_000, 0, 0.0, Size("time_slicing", "1/4", 0.25), id="nothing-needed"),
        pytest.param(16_000, 9000, 0.1, None, id="memory-for-one"),
        pytest.param(16_000, None, 0.1, None, id="memory-unknown"),
        pytest.param(None, 100, 0.1, None, id="size-unknown"),
    ],
)
def test_a_board_that_cannot_be_cut_is_shared_in_time(
    total_mib: int | None, memory_mib: float | None, activity: float, size: Size | None
) -> None:
    assert smaller_size("Tesla T4", total_mib, memory_mib, activity) == size
