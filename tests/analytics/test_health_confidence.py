"""Confidence: each verdict says how sure it is and what that rests on, and more evidence never makes it less sure."""

from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from analytics.health_confidence import confidence_of, succession
from analytics.health_policy import HealthPolicy
from analytics.health_values import WATCHED, Finding, Signs
from fleet.verdict import Severity
from tests.analytics.test_health import add_node, add_xid, judge

if TYPE_CHECKING:
    from tests.analytics.conftest import Engine

POLICY = HealthPolicy()


def found(rule: str, state: str = "degraded", **evidence: object) -> Finding:
    return Finding(rule, state, "inspect", Severity.WARNING, evidence=evidence)


def sure(finding: Finding, **signs: object) -> float:
    return confidence_of(finding, Signs("GPU-1", "c", "n", **signs), POLICY)[0]  # type: ignore[arg-type]  # one of many


@pytest.mark.parametrize(
    ("finding", "signs", "expected"),
    [
        (found("hw_power_brake"), {"slow_poll_count": 3, "poll_count": 5}, 4 / 7),
        (found("hw_power_brake"), {"slow_poll_count": 5, "poll_count": 5}, 6 / 7),
        (found("nvlink_down"), {"nvlink_poll_count": 3, "poll_count": 5}, 4 / 5),
        (found("ecc_corrected_storm", per_hour=3000.0), {}, 3 / 4),
        (found("ecc_corrected_storm", per_hour=1e12), {}, 0.95),
        (found("pcie_replays", replays=30.0, allowed=10.0), {}, 3 / 4),
        (found("xid_same_place", count=2), {}, 2 / 3),
        (found("driver_skew", "healthy"), {}, POLICY.peers_share),
        (found("gpu_lost", silent_s=660.0), {"interval_s": 60.0}, 12 / 13),
        (found("gpu_lost", event="gpu_lost"), {}, 0.95),
        (found("remap_exhausted"), {"architecture": "hopper"}, 0.95),
        (found("remap_exhausted"), {}, 0.6),
        (found("recovery_action", "failed", recovery_action=200, asks=None), {}, 0.6),
        (found("recovery_action", "failed", recovery_action=1, asks="GPU reset"), {}, 0.95),
        (found("xid_154", detail="the recovery action can't be read from the message"), {}, 0.6),
        (found("xid_4242", source="not in the catalogue"), {}, 0.3),
        (found("xid_4242", source="not in the catalogue; changed by the settings"), {}, 0.95),
        (found("no_telemetry", "unknown"), {}, 1.0),
    ],
)
def test_each_kind_of_evidence_has_its_formula(finding: Finding, signs: dict[str, object], expected: float) -> None:
    assert sure(finding, **signs) == pytest.approx(expected)


def test_a_clean_bill_is_as_good_as_what_was_looked_at() -> None:
    every = (1 << len(WATCHED)) - 1
    well = found("no_finding", "healthy")
    assert sure(well, poll_count=5, known_lately=every) == pytest.approx(6 / 7)
    assert sure(well, poll_count=5, known_lately=1) == pytest.approx(6 / 7 / len(WATCHED))
    assert sure(well) == 0


def test_more_polls_that_agree_never_make_it_less_sure() -> None:
    chances = [succession(agreeing, 5) for agreeing in range(6)]
    assert chances == sorted(chances)
    assert 0 < chances[0] < chances[-1] < 1


def test_a_verdict_tells_what_its_confidence_rests_on(engine: "Engine", now: datetime) -> None:
    add_node(engine, now, clock_event_bits=0x80)
    add_xid(engine, now, 79, gpu_uuid="GPU-2")
    verdicts = judge(engine, now)
    assert verdicts["GPU-1"].evidence["confidence_rests_on"] == "polls: 5 of 5 agree"
    assert verdicts["GPU-2"].evidence["confidence_rests_on"] == "told: by the driver or its catalogue"
