"""What failing parts may share: told only where it is known, and a boot only where it came shortly before."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import polars as pl
import pytest

from analytics.shared_causes import Causes, with_causes
from fleet.verdict import Severity, Verdict

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def causes(driver: str | None = "580.1", boots: tuple[timedelta, ...] = (), other: str | None = "580.1") -> Causes:
    gpus = [("g0", "c1", "n0", driver), ("g1", "c1", "n0", other), ("g2", "c2", "n0", "570.9")]
    events = [(NOW - ago, "c1", "n0", "boot") for ago in boots] + [(NOW, "c1", "n0", "gpu_reset")]
    return Causes.of(
        pl.DataFrame(gpus, schema=["uuid", "cluster", "node", "driver"], orient="row"),
        pl.DataFrame(events, schema=["ts", "cluster", "node", "kind"], orient="row"),
    )


def verdict(**changes: Any) -> Verdict:
    plain = Verdict(
        NOW, "health", "gpu", "g0", "failing", Severity.CRITICAL, "xid_79", MappingProxyType({"xid": 79}),
        cluster="c1", node="n0", action="fence", since=NOW - 2 * HOUR,
    )  # fmt: skip
    return replace(plain, **changes)


def told(known: Causes, **changes: Any) -> dict[str, object]:
    (found,) = with_causes([verdict(**changes)], known)
    return {name: value for name, value in found.evidence.items() if name != "xid"}


def test_the_driver_of_the_gpu_and_of_a_node_of_one_driver_is_told() -> None:
    assert told(causes()) == {"driver_version": "580.1"}
    assert told(causes(), cluster="c2", subject="g2") == {"driver_version": "570.9"}
    assert told(causes(), subject_kind="node", subject="n0", node=None) == {"driver_version": "580.1"}
    assert told(causes(other="570.2"), subject_kind="node", subject="n0") == {}
    assert told(causes(other=None), subject_kind="node", subject="n0") == {}
    assert told(causes(driver=None), subject="g0", node="n9") == {}


@pytest.mark.parametrize(
    ("boots", "at"),
    [
        ((), None),
        ((30 * HOUR,), None),
        ((26 * HOUR,), 26),
        ((3 * HOUR,), 3),
        ((30 * HOUR, 5 * HOUR, 3 * HOUR), 3),
        ((1 * HOUR,), 1),
        ((-1 * HOUR,), None),
    ],
    ids=[
        "none",
        "long before",
        "a day before it began",
        "just before",
        "the last of several",
        "after it began",
        "later",
    ],
)
def test_a_boot_is_told_that_came_shortly_before_or_after_the_failing_began(
    boots: tuple[timedelta, ...], at: int | None
) -> None:
    expected = None if at is None else (NOW - at * HOUR).isoformat()
    assert (
        told(
            causes(driver=None, other=None),
        )
        == {}
    )
    assert told(causes(boots=boots)).get("booted_at") == expected


def test_without_a_beginning_the_moment_of_the_verdict_counts() -> None:
    assert told(causes(boots=(25 * HOUR,)), since=None).get("booted_at") is None
    assert told(causes(boots=(23 * HOUR,)), since=None).get("booted_at") == (NOW - 23 * HOUR).isoformat()


@pytest.mark.parametrize("state", ["healthy", "probation", "unknown"])
def test_what_does_not_fail_is_left_as_it_is(state: str) -> None:
    plain = verdict(state=state)
    assert with_causes([plain], causes(boots=(HOUR,))) == [plain]


def test_what_a_rule_told_itself_stays() -> None:
    assert told(causes(), evidence=MappingProxyType({"driver_version": "535"}))["driver_version"] == "535"


def test_a_node_of_the_same_name_elsewhere_lends_nothing() -> None:
    assert "booted_at" not in told(causes(boots=(HOUR,)), cluster="c2", subject="g2")
