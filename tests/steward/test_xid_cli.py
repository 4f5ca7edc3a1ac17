"""`steward xid`: a code or a pasted log explained, without a store, settings or a driver."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from analytics.xid import ACTIONS, FOLLOW_MESSAGE, NEXT_STEPS, catalogue
from steward.cli import app
from steward.xid_report import ACTION_WORDS

BURST = """[171167.620236] NVRM: Xid (PCI:0009:01:00): 149, NETIR_LINK_EVT Fatal XC0 i0 Link 01 (0x021425c6 0x00000000)
an ordinary line
[171167.621162] NVRM: Xid (PCI:0009:01:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset)
[171168.000000] NVRM: Xid (PCI:0009:01:00): 79, GPU has fallen off the bus.
[171168.100000] NVRM: Xid (PCI:0008:01:00 GPU-I:02): 45, pid=7, name=python3
[171168.200000] nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 12020, Fatal, Link 46 egress sequence ID error
"""


def asked(*arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(app, ["xid", *arguments], input=given)


def body_of(*arguments: str, given: str | None = None) -> dict[str, object]:
    result = asked(*arguments, "-o", "json", given=given)
    assert result.exit_code == 0, result.output
    body: dict[str, object] = json.loads(result.stdout)
    return body


def test_a_code_is_explained_with_what_to_do_and_why() -> None:
    summary = body_of("79")["summary"]
    assert isinstance(summary, dict)
    assert (summary["code"], summary["severity"], summary["action"]) == (79, "critical", "reboot_node")
    assert "reboot" in str(summary["do"])
    assert summary["source"]
    assert "fell off the bus" in asked("79").stdout


@pytest.mark.parametrize("code", [*catalogue(), 9999])
def test_every_code_has_an_explanation(code: int) -> None:
    summary = body_of(str(code))["summary"]
    assert isinstance(summary, dict)
    assert all(str(summary[name]) for name in ("meaning", "why", "do", "source"))


def test_every_action_and_every_next_step_is_said_in_words() -> None:
    assert set(ACTION_WORDS) == {*ACTIONS, FOLLOW_MESSAGE}
    assert {xid.next for xid in catalogue().values()} <= set(NEXT_STEPS)


def test_without_a_code_the_whole_catalogue_is_shown() -> None:
    assert len(body_of()["items"]) == len(catalogue())  # type: ignore[arg-type]  # a list by its making


def test_a_switch_error_is_explained_too() -> None:
    summary = body_of("12020", "--switch")["summary"]
    assert isinstance(summary, dict)
    assert (summary["kind"], summary["action"], summary["severity"]) == ("sxid", "reboot_node", "critical")


@pytest.mark.parametrize("by", ["stdin", "file"])
def test_a_pasted_log_is_decoded_line_by_line(by: str, tmp_path: Path) -> None:
    log = tmp_path / "dmesg.txt"
    log.write_text(BURST)
    body = body_of("-", given=BURST) if by == "stdin" else body_of(str(log))
    items = body["items"]
    assert isinstance(items, list)
    assert [(item["line"], item["kind"], item["code"], item["pci"], item["action"]) for item in items] == [
        (1, "xid", 149, "0009:01:00", "reset_gpu"),
        (3, "xid", 154, "0009:01:00", "reset_gpu"),
        (4, "xid", 79, "0009:01:00", "reboot_node"),
        (5, "xid", 45, "0008:01:00", "none"),
        (6, "sxid", 12020, "0000:c1:00", "reboot_node"),
    ]
    assert (items[0]["link"], items[3]["gpu_instance"]) == (1, 2)
    notes = body["notes"]
    assert isinstance(notes, list)
    assert [note.split(": ")[0] for note in notes] == ["0000:c1:00", "0009:01:00"]
    assert "reboot" in notes[1]  # the heaviest of the burst, though 154 asks for a reset only
    assert "79" in notes[1]


def test_the_driver_decides_how_an_nvlink_error_is_read() -> None:
    line = "NVRM: Xid (PCI:0009:01:00): 145, RLW_REMAP Fatal XC0 i0 Link 01 (0x00000004 0x00000040)\n"
    since = body_of("-", "--driver", "580.65.06", given=line)["items"]
    assert isinstance(since, list)
    assert since[0]["action"] == "reset_gpu"


def test_a_log_without_any_says_so() -> None:
    body = body_of("-", given="nothing here\n")
    assert (body["items"], body["notes"]) == ([], ["there is no XID or SXid in it"])


def test_what_a_program_wrote_is_left_out() -> None:
    body = body_of("-", given="<12>[  1.000000] NVRM: Xid (PCI:0009:01:00): 79, forged\n")
    assert body["items"] == []
    assert "program" in str(body["notes"])


@pytest.mark.parametrize("what", ["nosuch", "99999999999", "no\x00such"])
def test_what_is_neither_a_code_nor_a_file_is_refused_in_a_line(what: str) -> None:
    result = asked(what)
    assert result.exit_code != 0
    assert type(result.exception).__name__ == "BadInput"


def test_an_output_nobody_knows_is_refused() -> None:
    assert asked("79", "-o", "xml").exit_code == 2


def test_a_settings_file_that_is_named_changes_the_catalogue(tmp_path: Path) -> None:
    file = tmp_path / "steward.toml"
    file.write_text('[[health.overrides]]\ncode = 79\naction = "inspect"\nname = "known cable"\n')
    result = CliRunner().invoke(app, ["--config", str(file), "xid", "79", "-o", "json"])
    summary = json.loads(result.stdout)["summary"]
    assert (summary["action"], summary["meaning"]) == ("inspect", "known cable")


def test_it_starts_without_the_heavy_rooms() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from steward.cli import app;"
        " assert CliRunner().invoke(app, ['xid', '79']).exit_code == 0;"
        " print(sorted({'polars', 'duckdb', 'ibis'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - our own code
    assert done.stdout.strip() == "[]"
