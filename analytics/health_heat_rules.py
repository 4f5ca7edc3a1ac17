"""The rules of health for heat, power and clocks: what slows a GPU down, and persists."""

from collections.abc import Iterable

from analytics.health_policy import HW_POWER_BRAKE, HW_THERMAL_SLOWDOWN
from analytics.health_values import Finding, Patient
from fleet.verdict import Severity

_IDLE = 0x1


def find_heat(patient: Patient) -> Iterable[Finding]:
    """Find hardware slowdowns, a thermal margin that is used up, and clocks stuck low under load."""
    yield from _slowdown(patient)
    yield from _margin(patient)
    yield from _stuck_clock(patient)


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


def _margin(patient: Patient) -> Iterable[Finding]:
    signs, policy = patient.signs, patient.policy
    if signs.hot_poll_count is None or signs.hot_poll_count < policy.polls_min:
        return
    evidence: dict[str, object] = {
        "thermal_margin_c": signs.thermal_margin_c,
        "least_c": policy.thermal_margin_min_c,
        "polls": signs.hot_poll_count,
    }
    yield Finding("thermal_margin_low", "degraded", "drain", Severity.WARNING, evidence=evidence)


def _stuck_clock(patient: Patient) -> Iterable[Finding]:
    """Find clocks that stay low while it works, though no reason of the driver's holds them back."""
    signs, policy = patient.signs, patient.policy
    clock, highest = signs.busy_sm_clock_mhz, signs.sm_clock_max_mhz
    if clock is None or highest is None or (signs.busy_poll_count or 0) < policy.polls_min:
        return
    if signs.held_back_bits is None or signs.held_back_bits & ~_IDLE:
        return
    if 0 <= clock < policy.stuck_clock_ratio * highest:
        evidence: dict[str, object] = {
            "sm_clock_mhz": clock,
            "sm_clock_max_mhz": highest,
            "polls": signs.busy_poll_count,
        }
        yield Finding("clock_stuck_low", "degraded", "drain", Severity.WARNING, evidence=evidence)
