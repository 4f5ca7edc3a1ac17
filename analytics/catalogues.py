"""Read the catalogues beside the XIDs: NVSwitch errors, recovery actions, clock event bits, memory repair.

Each is a CSV file of ours with the source of every row; the facts are NVIDIA's, the words ours.
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

_FATAL = re.compile(r"\b(non-?\s?)?fatal\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sxid:
    """One NVSwitch error; `fatality`: nonfatal, fatal (to a port) or always_fatal (to the whole fabric)."""

    code: int
    name: str
    fatality: str
    action: str
    next: str
    source: str


@dataclass(frozen=True, slots=True)
class RecoveryAction:
    """One value of NVML's recovery action, and the action of ours that it asks for."""

    value: int
    name: str
    action: str
    source: str


@dataclass(frozen=True, slots=True)
class ClockEvent:
    """One bit of NVML's clock event reasons; `is_fault` where it is none of the normal reasons to slow down."""

    bit: int
    name: str
    rule: str
    is_fault: bool
    source: str


@dataclass(frozen=True, slots=True)
class MemoryPolicy:
    """How an architecture repairs its memory: by retiring pages or remapping rows, and when that is used up."""

    architecture: str
    repair: str
    pages_replace: int | None
    rows_max: int | None
    source: str


def rows_of(name: str) -> list[dict[str, str]]:
    """Return the rows of one of this room's CSV files."""
    text = (files("analytics") / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@cache
def sxids() -> Mapping[int, Sxid]:
    """Return the NVSwitch errors by code."""
    found = (
        Sxid(int(row["code"]), row["name"], row["fatality"], row["action"], row["next"], row["source"])
        for row in rows_of("sxid_catalogue.csv")
    )
    return MappingProxyType({each.code: each for each in found})


@cache
def recovery_actions() -> Mapping[int, RecoveryAction]:
    """Return NVML's recovery actions by value."""
    found = (
        RecoveryAction(int(row["value"]), row["name"], row["action"], row["source"])
        for row in rows_of("recovery_actions.csv")
    )
    return MappingProxyType({each.value: each for each in found})


@cache
def clock_events() -> Mapping[int, ClockEvent]:
    """Return the clock event reasons by bit."""
    found = (
        ClockEvent(int(row["bit"], 16), row["name"], row["rule"], row["is_fault"] == "yes", row["source"])
        for row in rows_of("clock_events.csv")
    )
    return MappingProxyType({each.bit: each for each in found})


@cache
def memory_policies() -> Mapping[str, MemoryPolicy]:
    """Return how memory is repaired, by architecture in lower case."""
    found = (
        MemoryPolicy(
            row["architecture"], row["repair"], _number(row["pages_replace"]), _number(row["rows_max"]), row["source"]
        )
        for row in rows_of("memory_policies.csv")
    )
    return MappingProxyType({each.architecture.lower(): each for each in found})


def decode_sxid(code: int, message: str | None) -> Sxid:
    """Return what one NVSwitch error means; the line's own word decides where the code is not known.

    A fatal error of a port is told by the GPU at its other end too (XID 74), so it asks to look, not to act.
    """
    known = sxids().get(code)
    if known is not None:
        return known
    said = _FATAL.search(message or "")
    fatality = "nonfatal" if said is None or said[1] else "fatal"
    action = "inspect" if said is None or not said[1] else "none"
    return Sxid(code, "not documented", fatality, action, "follow_other", "not in the catalogue")


def _number(text: str) -> int | None:
    return int(text) if text else None
