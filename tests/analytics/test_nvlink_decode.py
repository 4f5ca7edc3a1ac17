"""NVLink errors are decoded as NVIDIA's table says, for both layouts, and never by guess."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.nvlink_decode import decode_nvlink5, decode_registers
from analytics.xid import ACTIONS, decode

RESOLUTIONS = {"IGNORE": "none", "RESET_GPU": "reset_gpu", "XID_154_EVAL": "restart_application"}
ERAS = {
    "before": ("intrinfo_v1_lt_r575", "action2_v1", "570.86.15"),
    "since": ("intrinfo_v2_ge_r575", "action2_v2", "575.51"),
}


def rows_of(root: Path) -> list[dict[str, str]]:
    files = [file for file in sorted((root / "nvidia").glob("*.csv")) if "intrinfo_v1" in file.read_text()[:200]]
    rows = [row for file in files for row in csv.DictReader(file.read_text().splitlines())]
    if not rows:
        pytest.skip("no NVLink decode table in the data")
    return rows


def lines_of(row: dict[str, str], pattern: str) -> Iterator[str]:
    """Give a line for each spelling of the unit, each status, and the free bits all off and all on."""
    word = "Nonfatal" if row["severity"].startswith("Non") else "Fatal"
    for unit in row["unit"].split("/"):
        for status in (row["error_status"] or "0x00000000").split("/"):
            for fill in "01":
                information = int(pattern.replace("-", fill), 2)
                told = f"{unit} {word} XC0 i0 Link 07 (0x{information:08x} {status} 0x0)"
                yield f"NVRM: Xid (PCI:0000:04:00): {row['xid']}, {told}"


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("is_driver_known", [True, False], ids=["driver-known", "driver-unknown"])
def test_every_row_of_the_table_is_decoded_to_its_resolution(
    data_root: Path, era: str, *, is_driver_known: bool
) -> None:
    column, hard_column, driver = ERAS[era]
    wrong, count = [], 0
    for row in rows_of(data_root):
        patterns = [(row[column], row["resolution"])]
        patterns += [(row[hard_column], row["action2"])] if row[hard_column] else []
        for pattern, resolution in patterns:
            for line in lines_of(row, pattern):
                if row[hard_column] and pattern == row[column] and int(line.split("(0x")[1][:8], 16) & 0x400:
                    continue  # the free bit is the one that the harder pattern asks for
                count += 1
                found = decode(int(row["xid"]), line, driver if is_driver_known else None)
                if found.action != RESOLUTIONS[resolution] or found.link != 7:
                    wrong.append((line, found.action, resolution))
    assert wrong == []
    assert count >= 2 * len(rows_of(data_root))


def test_the_harder_pattern_of_a_row_outweighs_its_softer_one(data_root: Path) -> None:
    hard = [row for row in rows_of(data_root) if row["action2"]]
    for row in hard:
        for column, driver in (("action2_v1", "570"), ("action2_v2", "580")):
            (line, *_) = lines_of(row, row[column])
            assert decode(int(row["xid"]), line, driver).action == RESOLUTIONS[row["action2"]]


def test_a_status_of_several_errors_is_as_bad_as_the_worst() -> None:
    def asks(status: int) -> str:
        return decode_nvlink5(144, f"144, SAW_MVB Fatal XC0 i0 Link 00 (0x00000021 {status:#010x})", "570").action

    assert [asks(0x1), asks(0x4), asks(0x2), asks(0x5), asks(0x7)] == ["none", "none", "reset_gpu", "none", "reset_gpu"]


@pytest.mark.parametrize(
    ("line", "action"),
    [
        ("NETIR_LINK_EVT Fatal XC0 i0 Link 01 (0xffffffff 0xffffffff)", "reset_gpu"),
        ("SOMETHING_NEW Nonfatal XC0 i0 Link 01 (0xffffffff 0xffffffff)", "none"),
        ("NETIR_LINK_EVT Non-fatal XC0", "none"),
        ("149, Placeholder message", "inspect"),
        ("", "inspect"),
    ],
)
def test_what_is_not_in_the_table_goes_by_the_lines_own_word(line: str, action: str) -> None:
    assert decode_nvlink5(149, line).action == action


def registers(*values: int) -> str:
    return f"NVLink: fatal error detected on link 2({', '.join(hex(value) for value in (*values, 0, 0))})"


@pytest.mark.parametrize(
    ("values", "action", "following"),
    [
        ((1 << 0 | 1 << 23 | 1 << 30, 0, 0, 0, 0), "none", "none"),
        ((1 << 1, 0, 0, 0, 0), "inspect", "follow_other"),
        ((0, 0, 0, 1 << 16, 0), "inspect", "follow_other"),
        ((1 << 4, 0, 0, 0, 0), "reset_gpu", "contact_support"),
        ((1 << 1 | 1 << 8, 0, 0, 0, 0), "reset_gpu", "check_link"),
        ((1 << 21, 0, 0, 0, 0), "reset_gpu", "check_link"),
        ((0, 0, 1 << 2, 0, 0), "reset_gpu", "contact_support"),
        ((0, 0, 0, 1 << 18, 0), "reset_gpu", "follow_other"),
        ((0, 0, 0, 0, 1 << 20), "none", "check_link"),
        ((0, 0, 0, 0, 1 << 18 | 1 << 20), "reset_gpu", "contact_support"),
        ((1 << 31, 0, 0, 0, 0), "reset_gpu", "contact_support"),
        ((0, 1, 0, 0, 0), "reset_gpu", "contact_support"),
        ((0, 0, 0, 0, 0), "reset_gpu", "contact_support"),
    ],
)
def test_registers_say_what_xid_74_asks_for(values: tuple[int, ...], action: str, following: str) -> None:
    found = decode_registers(registers(*values))
    assert (found.action, found.next, found.link) == (action, following, 2)
    assert decode(74, registers(*values)).action == action


def test_without_registers_the_error_is_taken_as_it_is() -> None:
    assert decode(74, None).action == "reset_gpu"
    assert decode(74, "pid=1234, name=python3, Channel 0x23").action == "reset_gpu"


@given(
    st.sampled_from([74, *range(144, 151), 154]),
    st.text(alphabet="(0x123456789abcdefF,; )LinkFatalNonSAWTO", max_size=80),
)
def test_no_line_crashes_the_decoder(code: int, line: str) -> None:
    assert decode(code, line).action in ACTIONS
