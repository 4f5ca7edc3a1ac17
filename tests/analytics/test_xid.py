"""The XID catalogue: complete, readable, and of one mind with its source where that is at hand."""

from pathlib import Path

import polars as pl
import pytest

from analytics.catalogues import clock_events, decode_sxid, memory_policies, recovery_actions, sxids
from analytics.health_policy import HealthPolicy
from analytics.xid import ACTIONS, FOLLOW_MESSAGE, NEXT_STEPS, RECOVERY_ACTIONS, XidOverride, catalogue, decode
from fleet.errors import BadInput
from fleet.verdict import Severity

IMMEDIATE = {
    "RESET_GPU": "reset_gpu", "IGNORE": "none", "RESTART_APP": "restart_application", "RESTART_BM": "reboot_node",
    "RESTART_VM": "reboot_node", "CHECK_MECHANICALS": "drain", "UPDATE_SWFW": "update_software",
}  # fmt: skip
ON_PURPOSE = {
    64: "replace_gpu"
}  # a failed remap is a replacement (A100 memory error management), a reset only delays it


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


def test_every_code_that_nvidia_lists_is_in_the_catalogue(data_root: Path) -> None:
    codes = set(pl.read_csv(data_root / "nvidia" / "xid.csv").get_column("code"))
    assert codes <= set(catalogue())


def test_no_words_of_the_source_are_copied(data_root: Path) -> None:
    rows = pl.read_csv(data_root / "nvidia" / "xid.csv").select("code", "description").drop_nulls()
    same = {code for code, text in rows.iter_rows() if text.lower() == catalogue()[code].name.lower()}
    assert same == set()


@pytest.mark.parametrize(
    ("message", "action"),
    [
        ("from 0x0 (None) to 0x4 (Drain and Reset)\nfrom 0x4 (Drain and Reset) to 0x1 (GPU Reset)", "reset_gpu"),
        ("from 0x0 (None) to 0x2 (Node Reboot Required)\nfrom 0x2 (Node Reboot Required) to 0x0 (None)", "none"),
        *((f"from 0x0 (None) to 0x{value}", RECOVERY_ACTIONS[value]) for value in range(8)),
    ],
)
def test_of_several_recovery_actions_the_last_is_named(message: str, action: str) -> None:
    assert decode(154, message).action == action


def test_a_site_changes_a_line_and_only_that() -> None:
    overrides = (XidOverride(79, action="inspect", name="known cable"), XidOverride(94, severity="critical"))
    changed = decode(79, None, None, overrides)
    assert (changed.action, changed.severity, changed.name) == ("inspect", Severity.WARNING, "known cable")
    assert "changed by the settings" in changed.source
    assert decode(94, None, None, overrides).severity is Severity.CRITICAL
    assert decode(95, None, None, overrides) == decode(95, None)


@pytest.mark.parametrize(
    ("field", "override"),
    [("action", {"action": "explode"}), ("severity", {"severity": "bad"}), ("scope", {"scope": "rack"}), ("code", {})],
)
def test_an_override_that_means_nothing_is_refused_by_name(field: str, override: dict[str, str]) -> None:
    with pytest.raises(BadInput, match=field):
        XidOverride(-1 if field == "code" else 79, **override)


def test_the_other_catalogues_are_of_one_mind_with_the_actions() -> None:
    named = {each.action for each in sxids().values()} | {each.action for each in recovery_actions().values()}
    assert named <= set(ACTIONS)
    assert {each.next for each in sxids().values()} | {xid.next for xid in catalogue().values()} <= set(NEXT_STEPS)
    assert sorted(recovery_actions()) == list(range(8))
    assert {bit for bit, event in clock_events().items() if event.is_fault} == {0x8, 0x40, 0x80}
    assert HealthPolicy().slowdown_bits == sum(bit for bit, event in clock_events().items() if event.is_fault)
    assert {policy.repair for policy in memory_policies().values()} == {"page_retirement", "row_remap"}


@pytest.mark.parametrize(
    ("code", "message", "fatality"),
    [
        (12020, None, "always_fatal"), (20034, None, "fatal"), (11012, "Fatal", "nonfatal"),
        (99999, "99999, Fatal, Link 1", "fatal"), (99999, "99999, Non-fatal, Link 1", "nonfatal"),
        (99999, None, "nonfatal"),
    ],
)  # fmt: skip
def test_a_switch_error_is_as_fatal_as_the_catalogue_or_else_its_line_says(
    code: int, message: str | None, fatality: str
) -> None:
    assert decode_sxid(code, message).fatality == fatality
