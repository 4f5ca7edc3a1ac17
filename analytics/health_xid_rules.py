"""The rules of health for what the driver told: XIDs, NVSwitch errors and its other events.

Each error stands until what cures it happened: a reset, a boot, a later word of the driver. A fault told by two
sources, or in many lines, is one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from analytics.catalogues import decode_sxid, recovery_actions
from analytics.health_values import STATE_OF_ACTION, Event, Finding, Patient
from analytics.xid import Xid, XidOverride, decode
from fleet.verdict import Severity

_CLEARED_BY_RESET = frozenset({"restart_application", "reset_gpu", "drain"})
_NOT_CLEARED = frozenset({"inspect", "run_diagnostics", "replace_gpu"})
_POWER_SMOOTHING_LOST, _POWER_SMOOTHING_BACK = 163, 162
_RECOVERY_CHANGED = 154
_PAGE_FAULT = 31
_DRIVER_EVENTS = {
    "ecc_double_bit": "reset_gpu", "dram_retirement_failed": "replace_gpu", "poison_fatal": "reset_gpu",
    "gpu_unavailable": "reboot_node",
}  # fmt: skip
"""Events of the driver that have no number, with what they ask for."""


@dataclass(frozen=True, slots=True)
class _Cures:
    """When a GPU was last reset and its node last booted."""

    reset_at: datetime | None
    boot_at: datetime | None

    def has_cleared(self, moment: datetime, action: str) -> bool:
        """Return whether what asked for this action at that moment was given it since."""
        if self.boot_at is not None and self.boot_at >= moment and action not in _NOT_CLEARED:
            return True
        return self.reset_at is not None and self.reset_at >= moment and action in _CLEARED_BY_RESET


def find_xids(patient: Patient) -> Iterable[Finding]:
    """Find the XIDs that nothing has cleared since; of one code the first tells since when."""
    cures = _cures(patient)
    open_xids: dict[tuple[int, str], list[tuple[Event, Xid]]] = {}
    for event, xid in _last_word(_decoded(patient)):
        if not cures.has_cleared(event.until, xid.action):
            open_xids.setdefault((xid.code, xid.action), []).append((event, xid))
    codes = sorted({code for code, _ in open_xids})
    for (code, _), told in open_xids.items():
        events = [event for event, _ in told]
        if code == _POWER_SMOOTHING_LOST and _is_taken_back(events, patient.events):
            continue
        xid = told[-1][1]
        if code in patient.policy.application_xids:
            yield _application(xid, events, patient)
        else:
            yield _xid_finding(xid, events, codes)


def find_switch_errors(patient: Patient) -> Iterable[Finding]:
    """Find the NVSwitch errors since the last boot; they are the node's, whose GPUs share the switch."""
    cures, by_code = _cures(patient), dict[int, list[Event]]()
    for event in patient.events:
        if event.kind == "sxid" and event.code is not None and not cures.has_cleared(event.ts, "reboot_node"):
            by_code.setdefault(event.code, []).append(event)
    for code, events in by_code.items():
        sxid = decode_sxid(code, events[-1].message)
        state, severity = {
            "always_fatal": ("failed", Severity.CRITICAL),
            "fatal": ("degraded", Severity.WARNING),
        }.get(sxid.fatality, ("healthy", Severity.INFO))
        evidence: dict[str, object] = {
            "sxid": code, "name": sxid.name, "fatality": sxid.fatality, "count": len(events), "source": sxid.source,
            "message": events[-1].message,
        }  # fmt: skip
        yield Finding(f"sxid_{code}", state, sxid.action, severity, events[0].ts, evidence)


def find_driver_events(patient: Patient) -> Iterable[Finding]:
    """Find what the driver told without an XID: double-bit errors, poison, a remap that failed, what it asks for."""
    cures = _cures(patient)
    for kind, action in _DRIVER_EVENTS.items():
        told = [event for event in patient.events if event.kind == kind and not cures.has_cleared(event.ts, action)]
        if told:
            evidence: dict[str, object] = {"event": kind, "count": len(told), "message": told[-1].message}
            yield Finding(kind, STATE_OF_ACTION[action], action, Severity.CRITICAL, told[0].ts, evidence)
    asked = [event for event in patient.events if event.kind == "recovery_action" and event.code is not None]
    code = asked[-1].code if asked else None
    recovery = None if code is None else recovery_actions().get(code)
    if recovery is not None and recovery.action != "none" and not cures.has_cleared(asked[-1].ts, recovery.action):
        evidence = {"recovery_action": recovery.value, "asks": recovery.name, "message": asked[-1].message}
        state = STATE_OF_ACTION[recovery.action]
        yield Finding("recovery_action", state, recovery.action, Severity.CRITICAL, asked[-1].ts, evidence)


def is_of_application(event: Event, driver: str | None, overrides: Iterable[XidOverride]) -> bool:
    """Return whether an event is an XID that hits a program alone, and so its MIG device and not the whole GPU."""
    if event.kind != "xid" or event.code is None:
        return False
    return decode(event.code, event.message, driver, overrides).scope == "application"


def _decoded(patient: Patient) -> list[tuple[Event, Xid]]:
    driver, overrides = patient.signs.driver, patient.policy.overrides
    return [
        (event, decode(event.code, event.message, driver, overrides))
        for event in patient.events
        if event.kind == "xid" and event.code is not None
    ]


def _last_word(told: list[tuple[Event, Xid]]) -> list[tuple[Event, Xid]]:
    """Return the XIDs without the recovery actions that a later one replaced."""
    last = max((place for place, (_, xid) in enumerate(told) if xid.code == _RECOVERY_CHANGED), default=-1)
    return [each for place, each in enumerate(told) if each[1].code != _RECOVERY_CHANGED or place == last]


def _cures(patient: Patient) -> _Cures:
    return _Cures(patient.last_of("gpu_reset"), patient.last_of("boot"))


def _is_taken_back(events: list[Event], later: Iterable[Event]) -> bool:
    last = events[-1].until
    return any(event.kind == "xid" and event.code == _POWER_SMOOTHING_BACK and event.ts >= last for event in later)


def _application(xid: Xid, events: list[Event], patient: Patient) -> Finding:
    """Suspect the GPU where a program's error comes again at one place, or from programs that share nothing but it."""
    policy = patient.policy
    workloads = sorted({workload for event in events for workload in event.workloads})
    count = _count(events)
    evidence: dict[str, object] = {
        "xid": xid.code, "name": xid.name, "count": count, "workloads": workloads, "message": events[-1].message,
    }  # fmt: skip
    places = _repeated_places(xid.code, events, workloads, patient)
    if places:
        evidence["places"] = places
        return Finding("xid_same_place", "degraded", "run_diagnostics", Severity.WARNING, events[0].ts, evidence)
    if len(workloads) >= policy.application_workloads_min <= count:
        return Finding("xid_application_repeated", "degraded", "inspect", Severity.WARNING, events[0].ts, evidence)
    return Finding("xid_application", "healthy", xid.action, Severity.INFO, events[0].ts, evidence)


def _count(events: Iterable[Event]) -> int:
    return sum(event.count for event in events)


def _repeated_places(code: int, events: list[Event], workloads: list[str], patient: Patient) -> list[str]:
    """Return where on the chip an error came again.

    A page fault is one program's where only one had it, or where other GPUs of the node have them too; else its
    place is the GPU where the lines name no other.
    """
    if code == _PAGE_FAULT and (len(workloads) == 1 or code in patient.peers.codes):
        return []
    return sorted(
        "this GPU" if event.place is None else event.place
        for event in events
        if (event.place is not None or code == _PAGE_FAULT) and event.bursts >= patient.policy.place_repeats
    )


def _xid_finding(xid: Xid, events: list[Event], codes: list[int]) -> Finding:
    evidence: dict[str, object] = {
        "xid": xid.code, "name": xid.name, "count": _count(events), "together_with": codes, "source": xid.source,
        "next": xid.next, "detail": xid.detail, "link": xid.link, "message": events[-1].message,
    }  # fmt: skip
    state = STATE_OF_ACTION.get(xid.action, "healthy") if xid.severity == Severity.CRITICAL else "healthy"
    return Finding(f"xid_{xid.code}", state, xid.action, xid.severity, events[0].ts, evidence)
