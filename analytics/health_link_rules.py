"""The rules of health for links: NVLink and its fabric, and PCI Express, each against its past and its peers."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from analytics.health_values import Finding, Patient
from fleet.verdict import Severity

SECONDS_PER_HOUR = 3600
_FABRIC_WAITS = frozenset({"not_started", "in_progress"})
# NVML's fabric health mask: two bits each, 1 = yes, 2 = no, 0 = not told.
_DEGRADED_BANDWIDTH, _UNHEALTHY_ROUTE = 0, 4
_LANE_BITS_PER_S: Mapping[int, float] = MappingProxyType({1: 2.5e9, 2: 5e9, 3: 8e9, 4: 16e9, 5: 32e9, 6: 64e9})
"""Raw bits a lane carries a second, by PCI Express generation."""


def find_links(patient: Patient) -> Iterable[Finding]:
    """Find links that are down, narrow, slow or full of errors, and a fabric that is not ready."""
    yield from _nvlink_down(patient)
    yield from _nvlink_errors(patient)
    yield from _fabric(patient)
    yield from _narrow(patient)
    yield from _slow(patient)
    yield from _replays(patient)


def _nvlink_down(patient: Patient) -> Iterable[Finding]:
    """Compare the links that are up with its own past, and with the other GPUs of its fabric.

    A GPU that never had a link up is no worse than it was: boards without a bridge are like that.
    """
    signs, peers = patient.signs, patient.peers
    lately, before = signs.nvlink_active_lately, signs.nvlink_active_history
    if lately is None or (signs.nvlink_poll_count or 0) < patient.policy.polls_min:
        return
    expected = max(before or 0, (peers.nvlink_active or 0) if before else 0)
    if lately < expected:
        evidence: dict[str, object] = {
            "links_up": lately,
            "links_before": before,
            "links_of_peers": peers.nvlink_active,
        }
        yield Finding("nvlink_down", "failing", "reset_gpu", Severity.CRITICAL, evidence=evidence)


def _nvlink_errors(patient: Patient) -> Iterable[Finding]:
    rise, span_s = patient.signs.nvlink_error_count_rise, patient.signs.nvlink_error_count_span_s
    if rise is None or span_s is None:
        return
    per_hour = rise / max(span_s, patient.policy.window_s / 6) * SECONDS_PER_HOUR
    if per_hour > patient.policy.nvlink_errors_per_hour_max:
        evidence: dict[str, object] = {"nvlink_errors": rise, "span_s": span_s, "per_hour": per_hour}
        yield Finding("nvlink_errors", "degraded", "inspect", Severity.WARNING, evidence=evidence)


def _fabric(patient: Patient) -> Iterable[Finding]:
    """Find a GPU that its fabric has not taken in: it computes, but reaches no other."""
    signs, policy = patient.signs, patient.policy
    starts = [moment for moment in (patient.last_of("boot"), signs.first_seen_at) if moment is not None]
    is_starting = bool(starts) and (patient.now - max(starts)).total_seconds() <= policy.boot_grace_s
    is_heard = signs.last_sample_at is not None
    if signs.fabric_state in _FABRIC_WAITS and not is_starting and is_heard:
        evidence: dict[str, object] = {"fabric_state": signs.fabric_state}
        yield Finding("fabric_not_ready", "failing", "drain", Severity.CRITICAL, evidence=evidence)
    if signs.fabric_state == "completed" and signs.fabric_status is not None and signs.fabric_status != 0:
        evidence = {"fabric_status": signs.fabric_status}
        yield Finding("fabric_failed", "failing", "drain", Severity.CRITICAL, evidence=evidence)
    if signs.fabric_bits is None or (signs.fabric_poll_count or 0) < policy.polls_min:
        return
    for rule, shift in (
        ("fabric_bandwidth_degraded", _DEGRADED_BANDWIDTH),
        ("fabric_route_unhealthy", _UNHEALTHY_ROUTE),
    ):
        if signs.fabric_bits >> shift & 0x3 == 1:
            yield Finding(
                rule, "degraded", "inspect", Severity.WARNING, evidence={"fabric_health_bits": hex(signs.fabric_bits)}
            )


def _narrow(patient: Patient) -> Iterable[Finding]:
    """Hold the width against its own past and against what most GPUs of its model have, never against the highest.

    Healthy boards show half of the lanes that they could have in many clouds, and all boards of a chassis may.
    """
    signs, peers = patient.signs, patient.peers
    lately, before = signs.pcie_width_lately, signs.pcie_width_history
    if lately is None or lately <= 0 or (signs.pcie_poll_count or 0) < patient.policy.polls_min:
        return
    if before is not None and lately < before:
        evidence: dict[str, object] = {"pcie_width": lately, "pcie_width_before": before}
        yield Finding("pcie_width_down", "degraded", "drain", Severity.WARNING, evidence=evidence)
    elif peers.pcie_width is not None and lately < peers.pcie_width and lately != peers.pcie_width_of_node:
        evidence = {"pcie_width": lately, "pcie_width_of_peers": peers.pcie_width, "model": signs.model}
        yield Finding("pcie_width_below_peers", "degraded", "drain", Severity.WARNING, evidence=evidence)


def _slow(patient: Patient) -> Iterable[Finding]:
    """Hold the generation under load against its own past under load: at rest a link saves power."""
    signs = patient.signs
    lately, before = signs.busy_pcie_generation, signs.pcie_generation_history
    if lately is None or before is None or lately <= 0 or (signs.busy_poll_count or 0) < patient.policy.polls_min:
        return
    if lately < before:
        evidence: dict[str, object] = {"pcie_generation": lately, "pcie_generation_before": before}
        yield Finding("pcie_generation_down", "degraded", "drain", Severity.WARNING, evidence=evidence)


def _replays(patient: Patient) -> Iterable[Finding]:
    """Find more replays than the bit error rate allows that PCI Express grants a link of this speed and width."""
    signs, policy = patient.signs, patient.policy
    rise, span_s = signs.pcie_replay_count_rise, signs.pcie_replay_count_span_s
    lane = _LANE_BITS_PER_S.get(signs.pcie_generation or 0)
    if rise is None or span_s is None or lane is None or signs.pcie_width_lately is None:
        return
    seconds = max(span_s, policy.window_s / 6)
    allowed = lane * signs.pcie_width_lately * policy.replay_ber_max * seconds
    if rise > allowed and rise > 1:
        evidence: dict[str, object] = {
            "replays": rise, "allowed": allowed, "span_s": span_s, "pcie_generation": signs.pcie_generation,
            "pcie_width": signs.pcie_width_lately,
        }  # fmt: skip
        yield Finding("pcie_replays", "degraded", "inspect", Severity.WARNING, evidence=evidence)
