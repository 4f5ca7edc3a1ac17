"""Say how sure each finding of health is, from what it rests on; no rule answers without.

- told: the driver or the catalogue says it outright: `TOLD`. Words that could not be read in full: `GUESSED`; a code
  nobody has documented: `UNDOCUMENTED`; a site's own word on a code: `TOLD`.
- polls: k of the last n polls agree: (k + 1) / (n + 2), the rule of succession. Three of three make 0.8.
- times: an error came n times where chance was expected: n / (n + 1).
- beyond: a rate r against a line l of ours: r / (r + l), half at the line, never above `BEYOND_MAX`.
- agreed: the share of peers that must agree before they speak; a bound from below.
- silence: m intervals without a sample: (m + 1) / (m + 2), never above `SILENCE_MAX`.
- measured: a clean bill is as good as what was looked at: the share of the watched signals that the last polls
  measured, by (n + 1) / (n + 2) for n polls.
- plain: what is said is that something is not known, or a fact of the record: 1.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from analytics.health_policy import HealthPolicy
from analytics.health_values import WATCHED, Finding, Signs

TOLD, GUESSED, UNDOCUMENTED = 0.95, 0.6, 0.3
BEYOND_MAX, SILENCE_MAX = 0.95, 0.94
_MANY = 1e6
_Answer = tuple[float, str]


def confidence_of(finding: Finding, signs: Signs, policy: HealthPolicy) -> _Answer:
    """Return how sure a finding is (0..1), and in words what that rests on."""
    if finding.state == "unknown":
        return 1.0, "plain: what is not known"
    if finding.rule == "no_finding":
        return _measured(signs)
    answer = _RULES.get(finding.rule)
    return _told(finding, signs, policy) if answer is None else answer(finding, signs, policy)


def succession(agreeing: int, seen: int) -> float:
    """Return the rule of succession's chance that the next of `seen` polls is like the `agreeing` ones."""
    return (min(agreeing, seen) + 1) / (seen + 2)


def _measured(signs: Signs) -> _Answer:
    polls, known = signs.poll_count or 0, (signs.known_lately or 0).bit_count()
    share = min(known / len(WATCHED), 1.0)
    return share * succession(polls, polls), f"measured: {known} of {len(WATCHED)} signals in {polls} polls"


def _told(finding: Finding, signs: Signs, policy: HealthPolicy) -> _Answer:  # noqa: ARG001 - one form for all
    source, detail = str(finding.evidence.get("source") or ""), str(finding.evidence.get("detail") or "")
    if "changed by the settings" in source:
        return TOLD, "told: by this site's settings"
    if "not in the catalogue" in source:
        return UNDOCUMENTED, "told: a code that nobody has documented"
    if "can't be read" in detail or (finding.rule == "recovery_action" and finding.evidence.get("asks") is None):
        return GUESSED, "told: by words that can't be read in full"
    return TOLD, "told: by the driver or its catalogue"


def _polls(finding: Finding, signs: Signs, policy: HealthPolicy) -> _Answer:
    """Count the polls that agree among those the rule looks at; the rest of the rules look at `polls_min` and all."""
    told = {
        "nvlink_down": signs.nvlink_poll_count,
        "fabric_bandwidth_degraded": signs.fabric_poll_count,
        "fabric_route_unhealthy": signs.fabric_poll_count,
        "pcie_width_down": signs.pcie_poll_count,
        "pcie_width_below_peers": signs.pcie_poll_count,
        "pcie_generation_down": signs.busy_poll_count,
        "clock_stuck_low": signs.busy_poll_count,
        "hw_slowdown": signs.slow_poll_count,
        "hw_thermal_slowdown": signs.slow_poll_count,
        "hw_power_brake": signs.slow_poll_count,
        "thermal_margin_low": signs.hot_poll_count,
    }[finding.rule]
    agreeing = told or 0
    some_of_all = finding.rule.startswith("hw_") or finding.rule == "thermal_margin_low"
    seen = max(agreeing, min(signs.poll_count or 0, policy.polls) if some_of_all else 0)
    return succession(agreeing, seen), f"polls: {agreeing} of {seen} agree"


def _times(finding: Finding, signs: Signs, policy: HealthPolicy) -> _Answer:  # noqa: ARG001 - one form for all
    count = finding.evidence.get("count")
    times = count if isinstance(count, int) and count > 0 else 1
    return times / (times + 1), f"times: {times} errors"


def _beyond(finding: Finding, signs: Signs, policy: HealthPolicy) -> _Answer:  # noqa: ARG001 - one form for all
    evidence = finding.evidence
    name, line = {
        "ecc_corrected_storm": ("per_hour", policy.corrected_per_hour_max),
        "nvlink_errors": ("per_hour", policy.nvlink_errors_per_hour_max),
        "pcie_replays": ("replays", evidence.get("allowed")),
    }[finding.rule]
    rate = evidence.get(name)
    if not isinstance(rate, int | float) or not isinstance(line, int | float):
        return 0.5, "beyond: a line that is not known"
    share = 1 / (1 + max(line, 0.0) / rate) if rate > 0 else 0.5  # the same, and still a number for an endless rate
    return min(share, BEYOND_MAX), f"beyond: {rate:.4g} against a line of {line:.4g}"


def _agreed(finding: Finding, signs: Signs, policy: HealthPolicy) -> _Answer:  # noqa: ARG001 - one form for all
    return policy.peers_share, f"agreed: at least {policy.peers_share:.0%} of its peers"


def _silence(finding: Finding, signs: Signs, policy: HealthPolicy) -> _Answer:
    silent_s = finding.evidence.get("silent_s")
    if not isinstance(silent_s, int | float):
        return _told(finding, signs, policy)  # an event told it
    intervals = silent_s / signs.interval_s if signs.interval_s is not None and signs.interval_s > 0 else 1.0
    missed = int(min(intervals, _MANY)) if math.isfinite(intervals) and intervals >= 1 else 1
    return min(succession(missed, missed), SILENCE_MAX), f"silence: {missed} intervals without a sample"


def _used_up(finding: Finding, signs: Signs, policy: HealthPolicy) -> _Answer:
    if signs.architecture is None:
        return GUESSED, "told: a count, against the strictest limit, for its architecture is not named"
    return _told(finding, signs, policy)


_RULES: Mapping[str, Callable[[Finding, Signs, HealthPolicy], _Answer]] = MappingProxyType({
    **dict.fromkeys(
        ("nvlink_down", "fabric_bandwidth_degraded", "fabric_route_unhealthy", "pcie_width_down",
         "pcie_width_below_peers", "pcie_generation_down", "clock_stuck_low", "hw_slowdown", "hw_thermal_slowdown",
         "hw_power_brake", "thermal_margin_low"),
        _polls,
    ),
    **dict.fromkeys(("xid_same_place", "xid_application_repeated"), _times),
    **dict.fromkeys(("ecc_corrected_storm", "nvlink_errors", "pcie_replays"), _beyond),
    **dict.fromkeys(("driver_skew", "vbios_skew"), _agreed),
    **dict.fromkeys(("remap_exhausted", "pages_exhausted"), _used_up),
    "gpu_lost": _silence,
})  # fmt: skip
