"""The rules of health: each looks at one GPU's signs and events and says what it found, or nothing."""

from collections.abc import Callable, Iterable

from analytics.catalogues import memory_policies, recovery_actions
from analytics.health_heat_rules import find_heat
from analytics.health_link_rules import find_links
from analytics.health_values import STATE_OF_ACTION, STATES, WATCHED, Event, Finding, Patient, Peers, Signs
from analytics.health_xid_rules import find_driver_events, find_switch_errors, find_xids
from fleet.verdict import Severity

SECONDS_PER_HOUR = 3600

__all__ = ["STATES", "Event", "Finding", "Patient", "Peers", "Signs", "find_all", "find_told"]


def find_all(patient: Patient) -> list[Finding]:
    """Return what every rule found, worst first."""
    found = [finding for rule in _RULES for finding in rule(patient)]
    return sorted(found, key=lambda finding: finding.weight, reverse=True)


def find_told(patient: Patient) -> list[Finding]:
    """Return what the rules for events alone found, worst first: for a node, which is not measured itself."""
    rules = (find_xids, find_driver_events, find_switch_errors, _told_lost)
    found = [finding for rule in rules for finding in rule(patient)]
    return sorted(found, key=lambda finding: finding.weight, reverse=True)


def _memory_flags(patient: Patient) -> Iterable[Finding]:
    """Find the driver's own flags: a failed remap and the SRAM threshold stay once seen, what is pending must stand."""
    signs = patient.signs
    for rule, count, least, state, action, severity in (
        ("remap_failed", signs.remap_failed_poll_count, 1, "failed", "replace_gpu", Severity.CRITICAL),
        ("sram_threshold_exceeded", signs.sram_threshold_poll_count, 1, "failed", "replace_gpu", Severity.CRITICAL),
        ("remap_pending", signs.is_remap_pending, patient.policy.flag_polls, "degraded", "reset_gpu", Severity.WARNING),
        (
            "page_retirement_pending", signs.is_page_retirement_pending, patient.policy.flag_polls, "degraded",
            "reboot_node", Severity.WARNING,
        ),
    ):  # fmt: skip
        if count is not None and count >= least:
            yield Finding(rule, state, action, severity, evidence={"polls": count})


def _memory_used_up(patient: Patient) -> Iterable[Finding]:
    """Find memory whose spare rows or pages are used up, by the policy of its architecture."""
    signs = patient.signs
    known = memory_policies().get((signs.architecture or "").lower())
    # An architecture that nobody named repairs in the one way or the other: whichever it counts.
    rows_max = min((each.rows_max for each in memory_policies().values() if each.rows_max is not None), default=None)
    pages = min(
        (each.pages_replace for each in memory_policies().values() if each.pages_replace is not None), default=None
    )
    if known is not None:
        rows_max, pages = known.rows_max, known.pages_replace
    for rule, count, limit in (
        ("remap_exhausted", signs.rows_remapped_uncorrected_count, rows_max),
        ("pages_exhausted", signs.retired_page_count, pages),
    ):
        if count is not None and limit is not None and count >= limit:
            evidence: dict[str, object] = {"count": count, "limit": limit, "architecture": signs.architecture}
            yield Finding(rule, "failed", "replace_gpu", Severity.CRITICAL, evidence=evidence)


def _recovery_action(patient: Patient) -> Iterable[Finding]:
    signs = patient.signs
    if signs.recovery_action is None or (signs.recovery_poll_count or 0) < patient.policy.flag_polls:
        return
    known = recovery_actions().get(signs.recovery_action)
    action = "inspect" if known is None else known.action
    evidence: dict[str, object] = {
        "recovery_action": signs.recovery_action,
        "asks": None if known is None else known.name,
    }
    yield Finding(
        "recovery_action", STATE_OF_ACTION.get(action, "degraded"), action, Severity.CRITICAL, evidence=evidence
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
    boot_at, mates_at = patient.last_of("boot"), patient.peers.last_sample_at
    if patient.peers.arrived_at is not None and patient.peers.arrived_at > last:
        evidence["replaced_at"] = patient.peers.arrived_at.isoformat()
        yield Finding("replaced", "unknown", "none", Severity.UNKNOWN, last, evidence)
    elif boot_at is not None and (patient.now - boot_at).total_seconds() <= policy.boot_grace_s:
        yield Finding("booting", "unknown", "none", Severity.UNKNOWN, boot_at, evidence)
    elif mates_at is None or (patient.now - mates_at).total_seconds() > silence_max_s:
        yield Finding("exporter_lost", "unknown", "none", Severity.UNKNOWN, last, evidence)
    else:
        yield Finding("gpu_lost", "failed", "reboot_node", Severity.CRITICAL, last, evidence)


def _told_lost(patient: Patient) -> Iterable[Finding]:
    """Believe an event that a GPU is lost or hangs until it speaks again or its node boots."""
    boot_at = patient.last_of("boot")
    heard_at = patient.signs.last_sample_at
    for event in patient.events:
        if event.kind not in {"gpu_lost", "probe_hang"} or (boot_at is not None and boot_at > event.ts):
            continue
        if heard_at is not None and heard_at > event.ts:
            continue
        evidence: dict[str, object] = {"event": event.kind, "message": event.message}
        rule = "gpu_lost" if event.kind == "gpu_lost" else "probe_hang"
        yield Finding(rule, "failed", "reboot_node", Severity.CRITICAL, event.ts, evidence)


def _blindness(patient: Patient) -> Iterable[Finding]:
    """Say what is not known: signals that ended, that were never there, or that can't be true are no clean bill."""
    signs, polls_min, last = patient.signs, patient.policy.polls_min, patient.signs.last_sample_at
    if last is None or (patient.now - last).total_seconds() > signs.silence_max_s(patient.policy):
        return  # its silence speaks
    if signs.poll_count is None or signs.poll_count <= 0:
        yield Finding("no_signal", "unknown", "inspect", Severity.UNKNOWN, last, {"polls": signs.poll_count})
        return
    if signs.implausible_poll_count is not None and signs.implausible_poll_count >= min(polls_min, signs.poll_count):
        evidence: dict[str, object] = {"polls": signs.implausible_poll_count, "of_polls": signs.poll_count}
        yield Finding("signal_implausible", "unknown", "inspect", Severity.UNKNOWN, evidence=evidence)
    lately, history = signs.known_lately or 0, signs.known_history or 0
    ended = [name for bit, name in enumerate(WATCHED) if history >> bit & 1 and not lately >> bit & 1]
    if ended and signs.poll_count >= polls_min:
        yield Finding("signal_lost", "unknown", "inspect", Severity.UNKNOWN, evidence={"signals": ended})
    if not history:
        yield Finding("no_signal", "unknown", "inspect", Severity.UNKNOWN, evidence={"polls": signs.poll_count})


def _skew(patient: Patient) -> Iterable[Finding]:
    """Tell a driver or VBIOS that most of its peers do not have; it works, but not as they do."""
    signs, peers = patient.signs, patient.peers
    for rule, own, theirs in (("driver_skew", signs.driver, peers.driver), ("vbios_skew", signs.vbios, peers.vbios)):
        if own is not None and theirs is not None and own != theirs:
            evidence: dict[str, object] = {
                "version": own,
                "most_have": theirs,
                "pool": signs.pool,
                "model": signs.model,
            }
            yield Finding(rule, "healthy", "update_software", Severity.WARNING, evidence=evidence)


_RULES: tuple[Callable[[Patient], Iterable[Finding]], ...] = (
    find_xids, find_driver_events, find_switch_errors, _memory_flags, _memory_used_up, _recovery_action, _silence,
    _told_lost, _corrected_storm, _uncorrected, find_heat, find_links, _skew, _blindness,
)  # fmt: skip
