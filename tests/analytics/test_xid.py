"""The XID catalogue: complete, readable, and of one mind with its source where that is at hand."""

from pathlib import Path

import polars as pl
import pytest

from analytics.xid import ACTIONS, FOLLOW_MESSAGE, catalogue, decode
from fleet.verdict import Severity

IMMEDIATE = {
    "RESET_GPU": "reset_gpu", "IGNORE": "none", "RESTART_APP": "restart_application", "RESTART_BM": "reboot_node",
    "RESTART_VM": "reboot_node", "CHECK_MECHANICALS": "drain", "UPDATE_SWFW": "update_software",
}  # fmt: skip
ON_PURPOSE = {64: "replace_gpu"}  # a failed remap is a replacement (A100 memory error management), a reset only delays it


def test_every_line_has_a_known_action_and_a_source() -> None:
    for xid in catalogue().values():
        assert xid.action in (*ACTIONS, FOLLOW_MESSAGE)
        assert xid.source


def test_the_catalogue_agrees_with_nvidias_immediate_action(data_root: Path) -> None:
    rows = pl.read_csv(data_root / "nvidia" / "xid.csv").filter(pl.col("severity") != "unused")
    for code, immediate in rows.select("code", "nvidia_immediate").iter_rows():
        assert code in catalogue()
        if immediate in IMMEDIATE:
            assert catalogue()[code].action == ON_PURPOSE.get(code, IMMEDIATE[immediate])


@pytest.mark.parametrize("code", [-1, 1, 9999])
def test_an_undocumented_code_is_a_warning_and_no_alarm(code: int) -> None:
    assert (decode(code, None).severity, decode(code, None).action) == (Severity.WARNING, "inspect")


def test_a_recovery_action_of_a_later_driver_is_looked_at() -> None:
    assert decode(154, "GPU recovery action changed from 0x0 (None) to 0x9 (Something)").action == "inspect"
