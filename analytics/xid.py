"""Read an XID: what the driver's error number means and what has to be done about it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType

from analytics.catalogues import recovery_actions, rows_of
from analytics.nvlink_decode import NvlinkError, decode_nvlink5, decode_registers
from fleet.bounds import require_between
from fleet.errors import BadInput
from fleet.severity import Severity

ACTIONS = (
    "none", "restart_application", "update_software", "inspect", "drain", "reset_gpu", "reboot_node",
    "run_diagnostics", "replace_gpu",
)  # fmt: skip
"""What can be asked for, the mildest first; of several findings the heaviest speaks."""

FOLLOW_MESSAGE = "follow_message"
SCOPES = ("application", "gpu", "node")
RECOVERY_ACTIONS: Mapping[int, str] = MappingProxyType(
    {each.value: each.action for each in recovery_actions().values()}
)
"""What NVML's recovery actions ask for; every reset of ours drains first."""

NEXT_STEPS: Mapping[str, str] = MappingProxyType({
    "none": "nothing more",
    "check_application": "look at the program first: bad data or bad calls are the usual cause",
    "check_cooling": "look at fans, airflow and heat sinks",
    "check_host": "look in the host's other logs; this follows from something else",
    "check_link": "look at the NVLink: signal quality, cables, seating",
    "check_memory": "look at the row remap and SRAM threshold flags; a failed remap or the threshold means replacement",
    "check_peer": "look at the device at the other end of the link",
    "check_seating": "look at power cables and seating of the board",
    "check_software": "look at drivers, fabric manager and whoever acted on the node",
    "contact_support": "if it comes again, collect a bug report and ask the vendor",
    "decode_message": "the rest of the line says what happened",
    "follow_other": "it follows from another error; look for that one first",
    "repeat_at_place": "the same GPC and TPC twice in a day speaks for the hardware: run diagnostics",
    "repeat_on_gpu": "twice in a day on this GPU and no other speaks for the hardware: run diagnostics",
    "update_software": "bring driver and firmware to one another",
})  # fmt: skip
"""What to look at when the action did not help, in words."""

_CATALOGUE = "xid_catalogue.csv"
_NVLINK_ERROR, _RECOVERY_CHANGED = 74, 154
_NVLINK5 = range(144, 151)
_RECOVERY = re.compile(r"\bto 0x([0-9a-fA-F]{1,8})\b")
_SEVERITIES = {"none": Severity.INFO, "restart_application": Severity.WARNING, "update_software": Severity.WARNING,
               "inspect": Severity.WARNING}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Xid:
    """One line of the catalogue, or what a message made of it.

    `action` is one of `ACTIONS`; `scope` says whom it hits: the application that ran (one MIG device), the GPU, or
    the node. `next` is a key of `NEXT_STEPS`. `detail` says what in the message decided, `link` which NVLink.
    """

    code: int
    name: str
    severity: Severity
    action: str
    source: str
    scope: str = "gpu"
    next: str = "contact_support"
    detail: str | None = None
    link: int | None = None


@dataclass(frozen=True, slots=True)
class XidOverride:
    """A line of the catalogue as a site wants it; what is None stays as it is."""

    code: int
    action: str | None = None
    severity: str | None = None
    name: str | None = None
    scope: str | None = None

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        require_between("code", self.code, 0, 2**31 - 1)
        severities = tuple(each.value for each in Severity)
        for field, value, known in (
            ("action", self.action, ACTIONS),
            ("severity", self.severity, severities),
            ("scope", self.scope, SCOPES),
        ):
            if value is not None and value not in known:
                message = f"{field}: {value!r} is none of {', '.join(known)}"
                raise BadInput(message, field=field)


@cache
def catalogue() -> Mapping[int, Xid]:
    """Return the catalogue by code; a code that is not in it has no documented meaning."""
    rows = [_read(row) for row in rows_of(_CATALOGUE)]
    return MappingProxyType({row.code: row for row in rows})


def _read(row: dict[str, str]) -> Xid:
    for field, known in (("action", (*ACTIONS, FOLLOW_MESSAGE)), ("scope", SCOPES), ("next", tuple(NEXT_STEPS))):
        if row[field] not in known:
            message = f"{_CATALOGUE}, code {row['code']}: {field} {row[field]} is none of {', '.join(known)}"
            raise BadInput(message, place=_CATALOGUE, field=field)
    return Xid(
        int(row["code"]),
        row["name"],
        Severity(row["severity"]),
        row["action"],
        row["source"],
        row["scope"],
        row["next"],
    )


def decode(code: int, message: str | None, driver: str | None = None, overrides: Iterable[XidOverride] = ()) -> Xid:
    """Return what one XID asks for; the codes whose message decides (74, 144-150, 154) are read from it.

    Of several lines in the message the heaviest speaks, of several recovery actions the last. A code nobody has
    documented, or a message that was cut off, is a warning to look at, never an alarm.
    """
    xid = _decode(code, message or "", driver)
    for override in overrides:
        if override.code == code:
            xid = _overridden(xid, override)
    return xid


def _decode(code: int, message: str, driver: str | None) -> Xid:
    known = catalogue().get(code)
    if known is None:
        return Xid(code, "not documented", Severity.WARNING, "inspect", "not in the catalogue")
    if code == _RECOVERY_CHANGED:
        return _recovery_changed(known, message)
    if code == _NVLINK_ERROR:
        return _heaviest(known, [decode_registers(line) for line in message.splitlines() or [""]])
    if code in _NVLINK5:
        return _heaviest(known, [decode_nvlink5(code, line, driver) for line in message.splitlines() or [""]])
    return known


def _recovery_changed(known: Xid, message: str) -> Xid:
    stated = _RECOVERY.findall(message)
    value = int(stated[-1], 16) if stated else None
    recovery = None if value is None else recovery_actions().get(value)
    if recovery is None:
        return _asking(known, "inspect", "the recovery action can't be read from the message")
    scope = "node" if recovery.action in {"reboot_node", "drain"} else "gpu"
    return replace(_asking(known, recovery.action, f"the driver asks to {recovery.name}"), scope=scope)


def _heaviest(known: Xid, errors: list[NvlinkError]) -> Xid:
    worst = max(errors, key=lambda error: ACTIONS.index(error.action))
    return replace(_asking(known, worst.action, worst.how), next=worst.next, link=worst.link)


def _asking(known: Xid, action: str, detail: str) -> Xid:
    return replace(known, action=action, severity=_SEVERITIES.get(action, Severity.CRITICAL), detail=detail)


def _overridden(xid: Xid, override: XidOverride) -> Xid:
    action = xid.action if override.action is None else override.action
    severity = xid.severity if override.action is None else _SEVERITIES.get(action, Severity.CRITICAL)
    return replace(
        xid,
        action=action,
        severity=severity if override.severity is None else Severity(override.severity),
        name=xid.name if override.name is None else override.name,
        scope=xid.scope if override.scope is None else override.scope,
        source=f"{xid.source}; changed by the settings",
    )
