"""Read an XID: what the driver's error number means and what has to be done about it."""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from fleet.errors import BadInput
from fleet.verdict import Severity

ACTIONS = (
    "none", "restart_application", "update_software", "inspect", "drain", "reset_gpu", "reboot_node",
)  # fmt: skip
FOLLOW_MESSAGE = "follow_message"
RECOVERY_ACTIONS: Mapping[int, str] = MappingProxyType(
    {0: "none", 1: "reset_gpu", 2: "reboot_node", 3: "drain", 4: "reset_gpu"}
)
"""NVML's recovery actions; 4 is "drain and reset", and every reset of ours drains first."""

_RECOVERY = re.compile(r"\bto 0x([0-9a-fA-F]+)")
_NON_FATAL = re.compile(r"\bnon-?fatal\b", re.IGNORECASE)
_FATAL = re.compile(r"\bfatal\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Xid:
    """One line of the catalogue; `action` is one of `ACTIONS`."""

    code: int
    name: str
    severity: Severity
    action: str
    source: str


@cache
def catalogue() -> Mapping[int, Xid]:
    """Return the catalogue by code; a code that is not in it has no documented meaning."""
    text = (files("analytics") / "xid_catalogue.csv").read_text(encoding="utf-8")
    rows = [_read(row) for row in csv.DictReader(text.splitlines())]
    return MappingProxyType({row.code: row for row in rows})


def _read(row: dict[str, str]) -> Xid:
    if row["action"] not in (*ACTIONS, FOLLOW_MESSAGE):
        message = f"xid_catalogue.csv, code {row['code']}: action {row['action']} is none of {', '.join(ACTIONS)}"
        raise BadInput(message, place="xid_catalogue.csv", field="action")
    return Xid(int(row["code"]), row["name"], Severity(row["severity"]), row["action"], row["source"])


def decode(code: int, message: str | None) -> Xid:
    """Return what one XID asks for; the codes whose message decides (144-150, 154) are read from it.

    A code nobody has documented, or a message that was cut off, is a warning to look at, never an alarm.
    """
    known = catalogue().get(code)
    if known is None:
        return Xid(code, "not documented", Severity.WARNING, "inspect", "not in the catalogue")
    if known.action != FOLLOW_MESSAGE:
        return known
    action = _stated_recovery(message or "") if code == _RECOVERY_CHANGED else _stated_fatality(message or "")
    severity = {"none": Severity.INFO, "inspect": Severity.WARNING}.get(action, Severity.CRITICAL)
    return Xid(code, known.name, severity, action, known.source)


_RECOVERY_CHANGED = 154


def _stated_recovery(message: str) -> str:
    found = _RECOVERY.search(message)
    return RECOVERY_ACTIONS.get(int(found.group(1), 16), "inspect") if found else "inspect"


def _stated_fatality(message: str) -> str:
    if _NON_FATAL.search(message):
        return "none"
    return "reset_gpu" if _FATAL.search(message) else "inspect"
