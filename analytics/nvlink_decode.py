"""Decode what an NVLink error says of itself: XID 144-150 by unit and status, XID 74 by its registers.

Drivers before 575 and those since lay the information word out differently; where the driver is not known, both are
tried and the unit that the line names decides.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from analytics.catalogues import rows_of

ERA_OF_575 = 575

_UNIT = re.compile(
    r"\b(?P<unit>[A-Z][A-Z0-9_/]{2,}|MSE Degraded)\s+(?P<fatality>Fatal|Nonfatal|Non-fatal)\b", re.IGNORECASE
)
_WORDS = re.compile(r"\(\s*(0x[0-9a-fA-F]{1,8})[\s,]+(0x[0-9a-fA-F]{1,8})")
_LINK = re.compile(r"\blink\s*(-?\d{1,4})", re.IGNORECASE)
_REGISTERS = re.compile(r"\(\s*(0x[0-9a-fA-F]{1,8}(?:\s*,\s*0x[0-9a-fA-F]{1,8}){3,7})\s*\)")
_FATAL = re.compile(r"\b(non-?\s?)?fatal\b", re.IGNORECASE)
_WEIGHT = ("none", "inspect", "restart_application", "reset_gpu")


@dataclass(frozen=True, slots=True)
class NvlinkError:
    """What an NVLink error asks for; `link` and `unit` where the line names them, `how` says what decided."""

    action: str
    how: str
    next: str = "decode_message"
    unit: str | None = None
    link: int | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    units: frozenset[str]
    patterns: tuple["_Pattern", "_Pattern"]
    statuses: frozenset[int]
    action: str
    hard_patterns: tuple["_Pattern | None", "_Pattern | None"]
    hard_action: str
    fatality: str
    next: str


@dataclass(frozen=True, slots=True)
class _Pattern:
    mask: int
    value: int

    def fits(self, word: int) -> bool:
        return word & self.mask == self.value


def decode_nvlink5(code: int, line: str, driver: str | None = None) -> NvlinkError:
    """Return what XID 144-150 asks for by its line; where the table has no such row, by the word (non)fatal."""
    said = _UNIT.search(line)
    unit = None if said is None else said["unit"].upper()
    link = _link(line)
    words = _WORDS.search(line)
    if words is not None:
        information, status = int(words[1], 16), int(words[2], 16)
        rows = _fitting(code, information, status, unit, _eras(driver))
        if rows:
            action, chosen = max(rows, key=lambda each: _WEIGHT.index(each[0]))
            how = f"{'/'.join(sorted(chosen.units))}, status {status:#010x}: {chosen.fatality.replace('_', ' ')}"
            return NvlinkError(action, how, chosen.next, unit, link)
    fatal = _FATAL.search(line)
    if fatal is None:
        return NvlinkError("inspect", "the line does not say what happened", "decode_message", unit, link)
    if fatal[1]:
        return NvlinkError("none", "not in the table; the line says it is not fatal", "contact_support", unit, link)
    return NvlinkError("reset_gpu", "not in the table; the line says it is fatal", "contact_support", unit, link)


def decode_registers(line: str) -> NvlinkError:
    """Return what XID 74 asks for by the registers in its line; without them it needs the reset that it asks for."""
    found, link = _REGISTERS.search(line), _link(line)
    if found is None:
        return NvlinkError("reset_gpu", "the line has no registers", "decode_message", None, link)
    registers = [int(text, 16) for text in found[1].replace(" ", "").split(",")]
    known = _register_kinds()
    kinds, unknown = set(), []
    for place, value in enumerate(registers, 1):
        for bit in (bit for bit in range(32) if value >> bit & 1):
            kind = known.get((place, bit))
            if kind is None:
                unknown.append(f"{place}:{bit}")
            else:
                kinds.add(kind)
    if unknown:
        return NvlinkError("reset_gpu", f"bits without a meaning: {', '.join(unknown)}", "contact_support", None, link)
    for name in ("parity", "connection", "marginal", "repeated", "unexpected", "fabric", "secondary", "threshold"):
        if name in kinds:
            action, following = _register_actions()[name]
            return NvlinkError(action, f"{name} ({', '.join(sorted(kinds))})", following, None, link)
    if kinds:
        return NvlinkError("none", "only bits that mean nothing", "none", None, link)
    return NvlinkError("reset_gpu", "no bit is set", "contact_support", None, link)


def _fitting(code: int, information: int, status: int, unit: str | None, eras: Iterable[int]) -> list[tuple[str, _Row]]:
    rows = _table().get(code, ())
    fitting = [
        (row, era)
        for era in eras
        for row in rows
        if row.patterns[era].fits(information) or _is_hard(row, era, information)
    ]
    named = [(row, era) for row, era in fitting if unit in row.units]
    chosen = named or fitting or [(row, 0) for row in rows if unit in row.units]
    exact = [(row, era) for row, era in chosen if not row.statuses or status in row.statuses]
    if not exact:  # several errors at once: the status is a mask of them
        exact = [
            (row, era) for row, era in chosen if any(bit.bit_count() == 1 and status & bit for bit in row.statuses)
        ]
    return [(row.hard_action if _is_hard(row, era, information) else row.action, row) for row, era in exact]


def _is_hard(row: _Row, era: int, information: int) -> bool:
    pattern = row.hard_patterns[era]
    return pattern is not None and pattern.fits(information)


def _eras(driver: str | None) -> tuple[int, ...]:
    major = re.match(r"\s*(\d{1,5})\b", driver or "")
    if major is None:
        return (0, 1)
    return (1,) if int(major[1]) >= ERA_OF_575 else (0,)


def _link(line: str) -> int | None:
    found = _LINK.search(line)
    return None if found is None else int(found[1])


@cache
def _table() -> Mapping[int, tuple[_Row, ...]]:
    table: dict[int, list[_Row]] = {}
    for row in rows_of("nvlink5_errors.csv"):
        table.setdefault(int(row["xid"]), []).append(
            _Row(
                frozenset(row["units"].upper().split(" ")),
                (_pattern(row["pattern_before_575"]), _pattern(row["pattern_since_575"])),
                frozenset(int(each, 16) for each in row["status"].split()),
                row["action"],
                _both(row["hard_pattern_before_575"], row["hard_pattern_since_575"]),
                row["hard_action"],
                row["fatality"],
                row["next"],
            )
        )
    return MappingProxyType({code: tuple(rows) for code, rows in table.items()})


def _both(before: str, since: str) -> tuple[_Pattern | None, _Pattern | None]:
    return (_pattern(before) if before else None, _pattern(since) if since else None)


def _pattern(text: str) -> _Pattern:
    return _Pattern(int(re.sub("[01]", "1", text).replace("-", "0"), 2), int(text.replace("-", "0"), 2))


@cache
def _register_kinds() -> Mapping[tuple[int, int], str]:
    return MappingProxyType(
        {
            (int(row["register"]), int(bit)): row["kind"]
            for row in rows_of("nvlink_registers.csv")
            for bit in row["bits"].split()
        }
    )


@cache
def _register_actions() -> Mapping[str, tuple[str, str]]:
    return MappingProxyType({row["kind"]: (row["action"], row["next"]) for row in rows_of("nvlink_registers.csv")})
