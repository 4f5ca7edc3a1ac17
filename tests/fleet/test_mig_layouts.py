"""MIG layouts by name, held against the recorded tables: what each makes of a board, and which there are not."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fleet.mig_geometry import Board, board_of, is_possible
from fleet.mig_layouts import BALANCED, WHOLE, balanced, devices_of, slot_name, slots_of, standard_layouts

_CONFIG = re.compile(r"^  (?P<name>\S+):\s*$")
_DEVICE = re.compile(r"^\s+\"(?P<profile>[^\"]+)\":\s*(?P<count>\d+)\s*$")


def board(name: str) -> Board:
    found = board_of(name, None)
    assert found is not None
    return found


def tables(root: Path, pattern: str, needs: str) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in sorted((root / "mig").glob(pattern))]
    return [each for each in found if needs in each]


def parted(root: Path) -> list[tuple[str, dict[str, int]]]:
    """Read the layouts of mig-parted configurations: one entry for each list of devices of each name."""
    found: list[tuple[str, dict[str, int]]] = []
    for path in sorted((root / "mig").glob("*.yaml")):
        name = ""
        for line in path.read_text().splitlines():
            if match := _CONFIG.match(line):
                name = match["name"]
            elif line.strip().startswith("mig-devices:"):
                found.append((name, {}))
            elif match := _DEVICE.match(line):
                found[-1][1][match["profile"]] = int(match["count"])
    return found


def known_boards() -> list[Board]:
    names = ("A30", "A100-40GB", "A100-80GB", "H100-80GB", "H100-94GB", "H100-96GB", "H200", "B200")
    found = [board_of(name.replace("-", " "), None) or board_of(name, None) for name in names]
    return [each for each in found if each is not None]


def test_recorded_counts_of_each_layout_are_ours(data_root: Path) -> None:
    compared = 0
    for table in tables(data_root, "*.json", "a100_40_counts"):
        for layout, devices in table["a100_40_counts"].items():
            compared += 1
            assert devices_of(board("A100-SXM4-40GB"), layout) == devices, layout
    assert compared > 0


def test_recorded_balanced_mixes_are_ours(data_root: Path) -> None:
    compared = 0
    for table in tables(data_root, "*.json", "all_balanced"):
        for name, devices in table["all_balanced"].items():
            known = board_of(name, None)
            if known is not None:
                compared += 1
                assert balanced(known) == devices, name
    assert compared > 0


def test_every_layout_that_the_recorded_configurations_name_is_ours_in_one_of_its_entries(data_root: Path) -> None:
    recorded: dict[str, list[dict[str, int]]] = {}
    for layout, devices in parted(data_root):
        recorded.setdefault(layout, []).append(devices)
    compared, wrong = 0, []
    for known in known_boards():
        for layout, ours in standard_layouts(known).items():
            if ours and layout in recorded:
                compared += 1
                if ours not in recorded[layout]:
                    wrong.append((known.name, layout, ours))
    assert wrong == []
    assert compared > 20


def test_every_standard_layout_is_possible_and_names_itself() -> None:
    for known in known_boards():
        for layout, devices in standard_layouts(known).items():
            assert is_possible(known, devices), (known.name, layout)
            assert layout in {WHOLE, BALANCED} or layout == f"all-{next(iter(devices)).replace('+', '.')}"


@pytest.mark.parametrize("layout", ["all-5g.50gb", "", "all-1g.5gb", "custom"])
def test_a_layout_that_a_board_does_not_have_is_none(layout: str) -> None:
    assert devices_of(board("NVIDIA A100-SXM4-80GB"), layout) is None


def test_a_site_s_own_layout_holds_only_where_it_is_possible() -> None:
    a100 = board("NVIDIA A100-SXM4-80GB")
    assert devices_of(a100, "ours", {"ours": {"3g.40gb": 1, "1g.10gb": 4}}) == {"3g.40gb": 1, "1g.10gb": 4}
    assert devices_of(a100, "ours", {"ours": {"3g.40gb": 3}}) is None


def test_slots_are_devices_times_gpus_by_the_names_a_node_gives_out() -> None:
    assert slots_of({"1g.10gb+me": 1, "3g.40gb": 2}, 8) == {
        "nvidia.com/mig-1g.10gb.me": 8,
        "nvidia.com/mig-3g.40gb": 16,
    }
    assert slots_of({}, 8) == {"nvidia.com/gpu": 8}
    assert slot_name("mig-1g.5gb") == "nvidia.com/mig-1g.5gb"
