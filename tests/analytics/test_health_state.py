"""The record of one GPU: what opens a fault, what clears it, what the next repair must be, in any order of arrival."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.health_state import LADDER, Happening, Incident, StatePolicy, incidents
from fleet.errors import BadInput

START = datetime(2026, 3, 1, tzinfo=UTC)
POLICY = StatePolicy()


def at(hours: float, kind: str, code: int = -1, message: str = "") -> Happening:
    return Happening(START + timedelta(hours=hours), kind, code, message)


def record(*events: Happening, heard: float | None = None) -> list[tuple[str, str | None, str]]:
    heard_at = None if heard is None else START + timedelta(hours=heard)
    return [(one.name, one.cleared_by, LADDER[one.rung]) for one in incidents(events, heard_at, POLICY)]


def test_a_fatal_xid_stays_open_until_what_it_asks_for_was_done() -> None:
    assert record(at(0, "xid", 79)) == [("xid_79", None, "reboot_node")]
    assert record(at(0, "xid", 79), at(1, "gpu_reset")) == [("xid_79", None, "reboot_node")]
    assert record(at(0, "xid", 79), at(2, "boot")) == [("xid_79", "boot", "reboot_node")]


def test_a_reset_clears_what_asked_for_a_reset_and_a_boot_clears_that_too() -> None:
    for repair in ("gpu_reset", "boot"):
        assert record(at(0, "xid", 95), at(1, repair)) == [("xid_95", repair, "reset_gpu")]


def test_a_repair_before_the_fault_clears_nothing() -> None:
    assert record(at(0, "boot"), at(1, "xid", 79)) == [("xid_79", None, "reboot_node")]


@pytest.mark.parametrize("code", [13, 31, 43, 45, 63], ids=str)
def test_what_an_application_did_opens_nothing(code: int) -> None:
    assert record(at(0, "xid", code)) == []


def test_only_the_exact_code_takes_its_own_fault_back() -> None:
    lost = [at(0, "xid", 163), at(1, "xid", 95)]
    told = record(*lost, at(2, "xid", 162))
    assert ("xid_95", None, "reset_gpu") in told
    assert all(by != "xid_162" for name, by, _ in told if name != "xid_163")


def test_a_gpu_that_returns_or_speaks_again_is_not_lost_any_more() -> None:
    assert record(at(0, "gpu_lost"), at(1, "gpu_recovered")) == [("gpu_lost", "gpu_recovered", "reboot_node")]
    assert record(at(0, "gpu_lost"), heard=1) == [("gpu_lost", "telemetry", "reboot_node")]
    assert record(at(2, "gpu_lost"), heard=1) == [("gpu_lost", None, "reboot_node")]


def test_speaking_again_clears_no_xid() -> None:
    assert record(at(0, "xid", 95), heard=5) == [("xid_95", None, "reset_gpu")]


def test_a_fault_that_survives_its_repair_climbs_the_ladder() -> None:
    told = record(
        at(0, "xid", 95), at(1, "gpu_reset"),
        at(5, "xid", 95), at(6, "boot"),
        at(9, "xid", 95),
    )  # fmt: skip
    assert [rung for _, _, rung in told] == ["reset_gpu", "reboot_node", "run_diagnostics"]


def test_an_escalated_fault_is_not_cleared_by_the_repair_that_failed() -> None:
    told = record(at(0, "xid", 95), at(1, "gpu_reset"), at(5, "xid", 95), at(6, "gpu_reset"))
    assert told[-1] == ("xid_95", None, "reboot_node")


def test_a_fault_that_comes_back_after_the_probation_begins_anew() -> None:
    told = record(at(0, "xid", 95), at(1, "gpu_reset"), at(24 * 20, "xid", 95))
    assert told[-1] == ("xid_95", None, "reset_gpu")


def test_another_fault_after_a_repair_is_no_relapse() -> None:
    told = record(at(0, "xid", 95), at(1, "gpu_reset"), at(2, "xid", 48))
    assert told[-1] == ("xid_48", None, "reset_gpu")


def test_what_is_said_again_is_counted_once_an_event() -> None:
    (one,) = incidents([at(0, "xid", 95), at(0, "xid", 95), at(3, "xid", 95)], None, POLICY)
    assert one.count == 2
    assert one.opened_at == START
    assert one.last_at == START + timedelta(hours=3)
    assert one.told()["tried_in_vain"] == []


EVENTS = st.builds(
    at,
    st.integers(0, 400).map(float),
    st.sampled_from(["xid", "boot", "gpu_reset", "gpu_lost", "gpu_recovered", "probe_hang", "ecc_double_bit", "sxid"]),
    st.sampled_from([-1, 13, 48, 63, 79, 94, 95, 154, 162, 163, 999]),
    st.sampled_from(["", "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)"]),
)


@given(events=st.lists(EVENTS, max_size=30), random=st.randoms(use_true_random=False))
def test_no_order_of_arrival_and_no_second_telling_changes_the_record(
    events: list[Happening],
    random: object,
) -> None:
    told = incidents(events, None, POLICY)
    shuffled = [*events, *events[:5]]
    getattr(random, "shuffle")(shuffled)  # noqa: B009 - hypothesis gives its own kind of Random
    assert incidents(shuffled, None, POLICY) == told


@given(events=st.lists(EVENTS, max_size=30), cut=st.integers(0, 400))
def test_the_record_of_a_moment_is_that_of_the_events_before_it(events: list[Happening], cut: int) -> None:
    """Hold that nothing is remembered: looking again from the start at any moment gives what was said then."""
    moment = START + timedelta(hours=cut)
    then = incidents([event for event in events if event.ts <= moment], None, POLICY)
    now = {(one.name, one.opened_at): one for one in incidents(events, None, POLICY)}
    for one in then:
        later = now[one.name, one.opened_at]
        if one.cleared_at is not None:
            assert later == one
        else:
            assert later.cleared_at is None or later.cleared_at > moment or later.cleared_at >= one.last_at


@given(events=st.lists(EVENTS, max_size=30))
def test_an_open_fault_is_after_every_repair_that_could_have_cleared_it(events: list[Happening]) -> None:
    told: list[Incident] = incidents(events, None, POLICY)
    boots = [event.ts for event in events if event.kind == "boot"]
    for one in told:
        assert one.opened_at <= one.last_at
        assert one.cleared_at is None or one.cleared_at >= one.opened_at
        if one.cleared_at is None and one.rung <= 2 and boots:
            assert one.last_at >= max(boots)


@pytest.mark.parametrize(
    "changes", [{"history_days": 0}, {"probation_s": -1}, {"boot_grace_s": -1}, {"debounce": {"hw_slowdown": (9, 8)}}]
)
def test_a_policy_that_means_nothing_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=next(iter(changes))):
        StatePolicy(**changes)  # type: ignore[arg-type]  # one field each, of its own type
