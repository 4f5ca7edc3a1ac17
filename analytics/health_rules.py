"""The rules of health: each looks at one GPU's signs and events and says what it found, or nothing."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from analytics.activity import SECONDS_PER_HOUR
from analytics.health_policy import HW_POWER_BRAKE, HW_THERMAL_SLOWDOWN, HealthPolicy
from analytics.xid import ACTIONS, RECOVERY_ACTIONS, Xid, decode
from fleet.verdict import Severity

STATES = ("healthy", "unknown", "degraded", "failing", "failed")
"""Health states from mild to bad; what is not known outranks a clean bill, never a finding."""

_CLEARED_BY_RESET = frozenset({"restart_application", "reset_gpu", "drain"})
_STATE_OF_ACTION = {"reset_gpu": "failing", "drain": "failing", "reboot_node": "failed", "inspect": "failed"}
_POWER_SMOOTHING_LOST, _POWER_SMOOTHING_BACK = 163, 162


@dataclass(frozen=True, slots=True)
class Signs:
    """One row that `health_signals` gives; its columns are explained there."""

    uuid: str
    cluster: str
    node: str
    pci_address: str | None = None
    last_sample_at: datetime | None = None
    interval_s: float | None = None
    pcie_width_history: int | None = None
    poll_count: int | None = None
    slow_poll_count: int | None = None
    slow_bits: int | None = None
    slow_since: datetime | None = None
    pcie_width_lately: int | None = None
    pcie_poll_count: int | None = None
    recovery_action: int | None = None
    recovery_poll_count: int | None = None
    is_remap_pending: int | None = None
    is_remap_failed: int | None = None
    is_sram_threshold_exceeded: int | None = None
    is_page_retirement_pending: int | None = None
    ecc_corrected_count_rise: float | None = None
    ecc_corrected_count_span_s: float | None = None
    ecc_uncorrected_count_rise: float | None = None
    ecc_uncorrected_count_span_s: float | None = None

    def silence_max_s(self, policy: HealthPolicy) -> float:
        """Return for how long this GPU may say nothing: three of its own intervals where they are long."""
        return max(policy.silence_s, 3 * (self.interval_s or 0.0))


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, with the workloads that were on the GPU."""

    ts: datetime
    cluster: str
    node: str
    gpu_uuid: str | None
    kind: str
    code: int | None
    message: str | None
    workloads: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule found."""

    rule: str
    state: str
    action: str
    severity: Severity
    since: datetime | None = None
    evidence: dict[str, object] = field(default_factory=dict)

    @property
    def weight(self) -> tuple[int, int, str]:
        """Order findings: the worst state first, then the heaviest action; the name only to be deterministic."""
        return STATES.index(self.state), ACTIONS.index(self.action), self.rule


@dataclass(frozen=True, slots=True)
class Patient:
    """One GPU: its signs, its own and its node's events in order of time, and the last word of its node's others."""

    signs: Signs
    events: tuple[Event, ...]
    mates_last_at: datetime | None
    policy: HealthPolicy
    now: datetime


def find_all(patient: Patient) -> list[Finding]:
    """Return what every rule found, worst first."""
    found = [finding for rule in _RULES for finding in rule(patient)]
    return sorted(found, key=lambda finding: finding.weight, reverse=True)


def _memory_flags(patient: Patient) -> Iterable[Finding]:
    signs, polls = patient.signs, patient.policy.flag_polls
    for name, state, action, severity in (
        ("is_remap_failed", "failed", "inspect", Severity.CRITICAL),
        ("is_sram_threshold_exceeded", "failed", "inspect", Severity.CRITICAL),
        ("is_remap_pending", "degraded", "reset_gpu", Severity.WARNING),
        ("is_page_retirement_pending", "degraded", "reboot_node", Severity.WARNING),
    ):
        count = getattr(signs, name)
        if count is not None and count >= polls:
            yield Finding(name.removeprefix("is_"), state, action, severity, evidence={"polls": count})


def _recovery_action(patient: Patient) -> Iterable[Finding]:
    signs = patient.signs
    if signs.recovery_action is None or (signs.recovery_poll_count or 0) < patient.policy.flag_polls:
        return
    action = RECOVERY_ACTIONS.get(signs.recovery_action, "inspect")
    yield Finding(
        "recovery_action",
        _STATE_OF_ACTION.get(action, "degraded"),
        action,
        Severity.CRITICAL,
        evidence={"recovery_action": signs.recovery_action},
    )


def _corrected_storm(patient: Patient) -> Iterable[Finding]:
    rise, span_s = patient.signs.ecc_corrected_count_rise, patient.signs.ecc_corrected_count_span_s
    if rise is None or span_s is None:
        return
    per_hour = rise / max(span_s, patient.policy.window_s / 6) * SECONDS_PER_HOUR  # a short look proves no rate
    if per_hour > patient.policy.corrected_per_hour_max:
        evidence: dict[str, object] = {"corrected_errors": rise, "span_s": span_s, "per_hour": per_hour}
        yield Finding("ecc_corrected_storm", "degraded", "drain", Severity.WARNING, evidence=evidence)


def _uncorrected(patient: Patient) -> Iterable[Finding]:
    rise = patient.signs.ecc_uncorrected_count_rise
    if rise is not None and rise > 0:
        evidence: dict[str, object] = {"uncorrected_errors": rise}
        yield Finding("ecc_uncorrected", "degraded", "reset_gpu", Severity.WARNING, evidence=evidence)


def _slowdown(patient: Patient) -> Iterable[Finding]:
    signs = patient.signs
    if signs.slow_poll_count is None or signs.slow_bits is None or signs.slow_poll_count < patient.policy.polls_min:
        return
    rule = "hw_slowdown"
    if signs.slow_bits & HW_POWER_BRAKE:
        rule = "hw_power_brake"
    elif signs.slow_bits & HW_THERMAL_SLOWDOWN:
        rule = "hw_thermal_slowdown"
    evidence: dict[str, object] = {
        "bits": hex(signs.slow_bits & patient.policy.slowdown_bits),
        "polls": signs.slow_poll_count,
        "of_polls": signs.poll_count,
    }
    yield Finding(rule, "degraded", "drain", Severity.WARNING, signs.slow_since, evidence)


def _narrow_link(patient: Patient) -> Iterable[Finding]:
    signs = patient.signs
    lately, before = signs.pcie_width_lately, signs.pcie_width_history
    if lately is None or before is None or (signs.pcie_poll_count or 0) < patient.policy.polls_min:
        return
    if lately < before:
        evidence: dict[str, object] = {"pcie_width": lately, "pcie_width_before": before}
        yield Finding("pcie_width_down", "degraded", "drain", Severity.WARNING, evidence=evidence)


def _silence(patient: Patient) -> Iterable[Finding]:
    """Tell a lost GPU (its node's others go on) from a lost exporter (nobody does) and from no telemetry at all."""
    last, policy = patient.signs.last_sample_at, patient.policy
    if last is None:
        yield Finding("no_telemetry", "unknown", "none", Severity.UNKNOWN)
        return
    silent_s = (patient.now - last).total_seconds()
    silence_max_s = patient.signs.silence_max_s(policy)
    if silent_s <= silence_max_s:
        return
    evidence: dict[str, object] = {"silent_s": silent_s, "last_sample_at": last.isoformat()}
    boots = [event.ts for event in patient.events if event.kind == "boot"]
    if boots and (patient.now - max(boots)).total_seconds() <= policy.boot_grace_s:
        yield Finding("booting", "unknown", "none", Severity.UNKNOWN, max(boots), evidence)
    elif patient.mates_last_at is None or (patient.now - patient.mates_last_at).total_seconds() > silence_max_s:
        yield Finding("exporter_lost", "unknown", "none", Severity.UNKNOWN, last, evidence)
    else:
        yield Finding("gpu_lost", "failed", "reboot_node", Severity.CRITICAL, last, evidence)


def _told_lost(patient: Patient) -> Iterable[Finding]:
    """Believe an event that a GPU is lost or hangs until it speaks again or its node boots."""
    boot_at = _last_of(patient.events, "boot")
    heard_at = patient.signs.last_sample_at
    for event in patient.events:
        if event.kind not in {"gpu_lost", "probe_hang"} or (boot_at is not None and boot_at > event.ts):
            continue
        if heard_at is not None and heard_at > event.ts:
            continue
        evidence: dict[str, object] = {"event": event.kind, "message": event.message}
        rule = "gpu_lost" if event.kind == "gpu_lost" else "probe_hang"
        yield Finding(rule, "failed", "reboot_node", Severity.CRITICAL, event.ts, evidence)


def _xids(patient: Patient) -> Iterable[Finding]:
    """Find the XIDs that no reset or boot has cleared since; of one code the first tells since when."""
    boot_at, reset_at = _last_of(patient.events, "boot"), _last_of(patient.events, "gpu_reset")
    open_xids: dict[tuple[int, str], list[Event]] = {}
    for event in patient.events:
        if event.kind != "xid" or event.code is None:
            continue
        xid = decode(event.code, event.message)
        if boot_at is not None and boot_at >= event.ts and xid.action != "inspect":
            continue
        if reset_at is not None and reset_at >= event.ts and xid.action in _CLEARED_BY_RESET:
            continue
        open_xids.setdefault((event.code, xid.action), []).append(event)
    codes = sorted({code for code, _ in open_xids})
    for (code, _), events in open_xids.items():
        if code == _POWER_SMOOTHING_LOST and _is_taken_back(events, patient.events):
            continue
        xid = decode(code, events[0].message)
        finding = _application(xid, events, patient.policy) if code in patient.policy.application_xids else None
        yield finding or _xid_finding(xid, events, codes)


def _is_taken_back(events: list[Event], later: Iterable[Event]) -> bool:
    last = events[-1].ts
    return any(event.kind == "xid" and event.code == _POWER_SMOOTHING_BACK and event.ts >= last for event in later)


def _application(xid: Xid, events: list[Event], policy: HealthPolicy) -> Finding | None:
    """Suspect the GPU where one program error after the other comes from workloads that share nothing but it."""
    workloads = sorted({workload for event in events for workload in event.workloads})
    evidence: dict[str, object] = {"xid": xid.code, "count": len(events), "workloads": workloads}
    if len(workloads) < policy.application_workloads_min or len(events) < policy.application_workloads_min:
        return Finding("xid_application", "healthy", xid.action, Severity.INFO, events[0].ts, evidence)
    return Finding("xid_application_repeated", "degraded", "inspect", Severity.WARNING, events[0].ts, evidence)


def _xid_finding(xid: Xid, events: list[Event], codes: list[int]) -> Finding:
    evidence: dict[str, object] = {
        "xid": xid.code, "name": xid.name, "count": len(events), "together_with": codes, "source": xid.source,
        "message": events[-1].message,
    }  # fmt: skip
    state = _STATE_OF_ACTION.get(xid.action, "healthy") if xid.severity == Severity.CRITICAL else "healthy"
    return Finding(f"xid_{xid.code}", state, xid.action, xid.severity, events[0].ts, evidence)


def _last_of(events: Iterable[Event], kind: str) -> datetime | None:
    return max((event.ts for event in events if event.kind == kind), default=None)


_RULES: tuple[Callable[[Patient], Iterable[Finding]], ...] = (
    _xids, _memory_flags, _recovery_action, _silence, _told_lost, _corrected_storm, _uncorrected, _slowdown,
    _narrow_link,
)  # fmt: skip
