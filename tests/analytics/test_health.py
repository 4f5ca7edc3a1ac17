"""Health: each rule finds what it is for, stays silent on a blip, and knows what it does not know."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from analytics.health import judge_health
from analytics.health_policy import HealthPolicy
from analytics.health_signals import health_events, health_signals
from fleet.errors import BadInput
from fleet.verdict import Severity, Verdict, verdict_frame

if TYPE_CHECKING:
    from tests.analytics.conftest import Engine

MINUTE = timedelta(minutes=1)
POLICY = HealthPolicy()


def minutes(now: datetime, count: int = 60, until: int = 0) -> list[datetime]:
    return [now - MINUTE * back for back in range(count, until, -1)]


def judge(engine: "Engine", now: datetime, policy: HealthPolicy = POLICY) -> dict[str, Verdict]:
    signals = engine.run(health_signals(engine.tables, now, policy))
    events = engine.run(health_events(engine.tables, now, policy))
    verdicts = judge_health(signals, events, policy, now)
    assert verdict_frame(verdicts).height == len(verdicts)
    assert len({(verdict.subject_kind, verdict.subject, verdict.rule) for verdict in verdicts}) == len(verdicts)
    return {verdict.subject: verdict for verdict in verdicts}


def add_node(engine: "Engine", now: datetime, gpus: tuple[int, ...] = (1, 2), **sample: Any) -> None:
    """Add a node's GPUs, the first with the given samples and the others with plain ones."""
    for gpu in gpus:
        engine.add_gpu(gpu, pci_bus_id=f"00000000:{gpu:02X}:00.0")
        engine.add_samples(gpu, minutes(now), **{"temperature_c": 40.0, **(sample if gpu == gpus[0] else {})})


def add_xid(engine: "Engine", ts: datetime, code: int, **more: Any) -> None:
    event = {"ts": ts, "cluster": "c1", "node": "n1", "kind": "xid", "code": code, "source": "test"}
    engine.add("event", **{**event, "gpu_uuid": "GPU-1", **more})


def told(verdict: Verdict) -> tuple[str, str, str | None]:
    return verdict.state, verdict.rule, verdict.action


def test_an_empty_store_gives_no_verdicts(engine: "Engine", now: datetime) -> None:
    assert judge(engine, now) == {}


def test_a_gpu_without_telemetry_is_unknown_and_its_node_is_not_alarmed(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    verdicts = judge(engine, now)
    assert list(verdicts) == ["GPU-1"]
    assert told(verdicts["GPU-1"]) == ("unknown", "no_telemetry", "none")


def test_a_gpu_with_plain_samples_is_healthy(engine: "Engine", now: datetime) -> None:
    add_node(
        engine, now, clock_event_bits=0x5, ecc_corrected_count=12, ecc_uncorrected_count=3, pcie_width=16,
        is_remap_pending=False, is_remap_failed=False, recovery_action=0,
    )  # fmt: skip
    assert {told(verdict) for verdict in judge(engine, now).values()} == {("healthy", "no_finding", "none")}


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        pytest.param(79, None, ("failed", "xid_79", "reboot_node"), id="fallen-off-the-bus"),
        pytest.param(48, None, ("failing", "xid_48", "reset_gpu"), id="double-bit-error"),
        pytest.param(95, None, ("failing", "xid_95", "reset_gpu"), id="uncontained"),
        pytest.param(94, None, ("healthy", "xid_94", "restart_application"), id="contained"),
        pytest.param(64, None, ("failed", "xid_64", "replace_gpu"), id="remap-failure"),
        pytest.param(63, None, ("healthy", "xid_63", "none"), id="remapped"),
        pytest.param(45, None, ("healthy", "xid_45", "none"), id="teardown-alone"),
        pytest.param(13, None, ("healthy", "xid_application", "restart_application"), id="program-error"),
        pytest.param(9999, None, ("healthy", "xid_9999", "inspect"), id="not-documented"),
        pytest.param(
            154, "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
            ("failing", "xid_154", "reset_gpu"), id="says-reset",
        ),
        pytest.param(
            154, "GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)",
            ("healthy", "xid_154", "none"), id="says-none",
        ),
        pytest.param(154, "154 (", ("healthy", "xid_154", "inspect"), id="cut-off"),
        pytest.param(149, "NETIR_LINK_EVT  Fatal   XC0", ("failing", "xid_149", "reset_gpu"), id="nvlink-fatal"),
        pytest.param(149, "NETIR_LINK_EVT  Nonfatal   XC0", ("healthy", "xid_149", "none"), id="nvlink-nonfatal"),
    ],
)  # fmt: skip
def test_an_xid_asks_for_what_it_needs(
    engine: "Engine", now: datetime, code: int, message: str | None, expected: tuple[str, str, str]
) -> None:
    add_node(engine, now)
    add_xid(engine, now - 5 * MINUTE, code, message=message)
    verdicts = judge(engine, now)
    assert told(verdicts["GPU-1"]) == expected
    assert verdicts["GPU-2"].state == "healthy"


@pytest.mark.parametrize(
    ("codes", "rule"),
    [
        pytest.param((45, 79, 154), "xid_79", id="a-reboot-outweighs-a-reset"),
        pytest.param((13, 45, 48, 63), "xid_48", id="memory-outweighs-the-program"),
        pytest.param((48, 64), "xid_64", id="a-failed-remap-outweighs-a-reset"),
        pytest.param((45, 45, 45), "xid_45", id="teardown-repeated-is-still-teardown"),
    ],
)
def test_of_a_burst_the_worst_speaks(engine: "Engine", now: datetime, codes: tuple[int, ...], rule: str) -> None:
    add_node(engine, now)
    for place, code in enumerate(codes):
        add_xid(engine, now - 5 * MINUTE + timedelta(seconds=place), code, message="to 0x1 (GPU Reset Required)")
    verdict = judge(engine, now)["GPU-1"]
    assert verdict.rule == rule
    assert len(verdict.evidence["others"]) == len(set(codes)) - 1  # type: ignore[arg-type]  # a list by its making


@pytest.mark.parametrize(
    ("code", "cure", "state"),
    [
        pytest.param(95, "gpu_reset", "healthy", id="reset-cures-what-asks-for-it"),
        pytest.param(95, "boot", "healthy", id="boot-resets-too"),
        pytest.param(79, "gpu_reset", "failed", id="reset-does-not-cure-a-lost-gpu"),
        pytest.param(79, "boot", "healthy", id="boot-does"),
        pytest.param(64, "boot", "failed", id="nothing-cures-a-failed-remap"),
    ],
)
def test_the_right_repair_clears_an_xid(engine: "Engine", now: datetime, code: int, cure: str, state: str) -> None:
    add_node(engine, now)
    add_xid(engine, now - 30 * MINUTE, code)
    uuid = "GPU-1" if cure == "gpu_reset" else None
    add_xid(engine, now - 20 * MINUTE, 0, kind=cure, gpu_uuid=uuid)
    assert judge(engine, now)["GPU-1"].state == state


def test_an_xid_after_the_repair_counts_again(engine: "Engine", now: datetime) -> None:
    add_node(engine, now)
    add_xid(engine, now - 20 * MINUTE, 0, kind="gpu_reset")
    add_xid(engine, now - 10 * MINUTE, 95)
    assert judge(engine, now)["GPU-1"].state == "failing"


def test_program_errors_of_two_workloads_make_the_gpu_suspect(engine: "Engine", now: datetime) -> None:
    add_node(engine, now)
    engine.add_pod(1, now - timedelta(hours=9), "first", ends_at=now - timedelta(hours=5))
    engine.add_pod(1, now - timedelta(hours=4), "second")
    add_xid(engine, now - timedelta(hours=6), 31)
    add_xid(engine, now - timedelta(hours=1), 31)
    assert told(judge(engine, now)["GPU-1"]) == ("degraded", "xid_same_place", "run_diagnostics")


def test_program_errors_of_one_workload_stay_its_own(engine: "Engine", now: datetime) -> None:
    add_node(engine, now)
    engine.add_pod(1, now - timedelta(hours=9), "first")
    for hours in (6, 5, 4, 1):
        add_xid(engine, now - timedelta(hours=hours), 31)
    verdict = judge(engine, now)["GPU-1"]
    assert (verdict.state, verdict.severity) == ("healthy", Severity.INFO)


def test_one_error_on_a_gpu_that_two_workloads_share_is_not_a_repetition(engine: "Engine", now: datetime) -> None:
    add_node(engine, now)
    for name in ("a", "b"):
        engine.add_pod(1, now - timedelta(hours=9), name, fraction=0.5)
    add_xid(engine, now - timedelta(hours=1), 13)
    assert judge(engine, now)["GPU-1"].state == "healthy"


def test_a_power_smoothing_loss_is_taken_back(engine: "Engine", now: datetime) -> None:
    add_node(engine, now)
    add_xid(engine, now - 9 * MINUTE, 163)
    assert judge(engine, now)["GPU-1"].rule == "xid_163"
    add_xid(engine, now - 5 * MINUTE, 162)
    assert judge(engine, now)["GPU-1"].rule == "xid_162"


@pytest.mark.parametrize("written", ["0000:01:00", "PCI:0000:01:00.0", "00000000:01:00.0"])
def test_an_xid_without_uuid_finds_its_gpu_by_address(engine: "Engine", now: datetime, written: str) -> None:
    add_node(engine, now)
    add_xid(engine, now - 5 * MINUTE, 95, gpu_uuid=None, pci_bus_id=written)
    verdicts = judge(engine, now)
    assert verdicts["GPU-1"].state == "failing"
    assert "n1" not in verdicts


def test_an_xid_of_a_slice_is_its_gpus(engine: "Engine", now: datetime) -> None:
    add_node(engine, now)
    engine.add("slice", slice=4, uuid="MIG-4", gpu=1)
    add_xid(engine, now - 5 * MINUTE, 95, gpu_uuid=None, slice_uuid="MIG-4")
    assert judge(engine, now)["GPU-1"].state == "failing"


def test_an_xid_that_names_no_gpu_is_its_nodes(engine: "Engine", now: datetime) -> None:
    add_node(engine, now)
    add_xid(engine, now - 5 * MINUTE, 79, gpu_uuid=None)
    verdicts = judge(engine, now)
    assert told(verdicts["n1"]) == ("failed", "xid_79", "reboot_node")
    assert verdicts["n1"].subject_kind == "node"
    assert verdicts["GPU-1"].state == "healthy"


def test_an_event_of_the_future_or_of_last_week_is_not_heard(engine: "Engine", now: datetime) -> None:
    add_node(engine, now)
    add_xid(engine, now + 5 * MINUTE, 79)
    add_xid(engine, now - timedelta(days=7), 79)
    assert judge(engine, now)["GPU-1"].state == "healthy"


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("is_remap_pending", ("degraded", "remap_pending", "reset_gpu")),
        ("is_page_retirement_pending", ("degraded", "page_retirement_pending", "reboot_node")),
    ],
)
def test_a_flag_that_stands_speaks_and_a_blip_does_not(
    engine: "Engine", now: datetime, flag: str, expected: tuple[str, str, str]
) -> None:
    add_node(engine, now, (1, 2), **{flag: [False] * 58 + [True] * 2})
    assert told(judge(engine, now)["GPU-1"]) == expected
    add_node(engine, now, (3, 4), **{flag: [False] * 59 + [True]})
    add_node(engine, now, (5, 6), **{flag: [False] * 30 + [True] * 29 + [False]})
    verdicts = judge(engine, now)
    assert verdicts["GPU-3"].state == "healthy"
    assert verdicts["GPU-5"].state == "healthy"


@pytest.mark.parametrize(
    ("flag", "rule"),
    [("is_remap_failed", "remap_failed"), ("is_sram_threshold_exceeded", "sram_threshold_exceeded")],
)
def test_what_only_a_new_board_cures_stays_once_seen(engine: "Engine", now: datetime, flag: str, rule: str) -> None:
    add_node(engine, now, (1, 2), **{flag: [False] * 30 + [True] + [False] * 29})
    assert told(judge(engine, now)["GPU-1"]) == ("failed", rule, "replace_gpu")
    assert judge(engine, now)["GPU-2"].state == "healthy"


@pytest.mark.parametrize(
    ("recovery", "expected"),
    [
        (1, ("failing", "recovery_action", "reset_gpu")),
        (2, ("failed", "recovery_action", "reboot_node")),
        (3, ("failing", "recovery_action", "drain")),
        (4, ("failing", "recovery_action", "reset_gpu")),
        (5, ("failing", "recovery_action", "drain")),
        (6, ("failing", "recovery_action", "reset_gpu")),
        (7, ("failed", "recovery_action", "reboot_node")),
        (0, ("healthy", "no_finding", "none")),
        (None, ("healthy", "no_finding", "none")),
    ],
)
def test_the_drivers_own_recovery_action_is_followed(
    engine: "Engine", now: datetime, recovery: int | None, expected: tuple[str, str, str]
) -> None:
    add_node(engine, now, recovery_action=recovery)
    assert told(judge(engine, now)["GPU-1"]) == expected


@pytest.mark.parametrize(
    ("counts", "state"),
    [
        pytest.param([20 * step for step in range(60)], "degraded", id="twenty-a-minute"),
        pytest.param([10 * step for step in range(60)], "healthy", id="ten-a-minute"),
        pytest.param([5_000_000] * 60, "healthy", id="many-but-none-new"),
        pytest.param([5_000_000] * 30 + [0] * 30, "healthy", id="reset-to-zero"),
        pytest.param([5_000_000] * 30 + [40 * step for step in range(30)], "degraded", id="rising-after-a-reset"),
        pytest.param([None] * 60, "healthy", id="not-measured"),
        pytest.param([0] + [None] * 58 + [2000], "degraded", id="across-a-gap"),
        pytest.param([None] * 59 + [10**9], "healthy", id="one-reading-shows-no-rise"),
        pytest.param([None] * 58 + [0, 100], "healthy", id="a-short-look-shows-no-rate"),
    ],
)
def test_a_storm_is_a_rate_and_not_a_count(
    engine: "Engine", now: datetime, counts: list[int | None], state: str
) -> None:
    add_node(engine, now, ecc_corrected_count=counts)
    verdict = judge(engine, now)["GPU-1"]
    assert verdict.state == state
    assert verdict.rule == ("ecc_corrected_storm" if state == "degraded" else "no_finding")


def test_new_uncorrected_errors_degrade(engine: "Engine", now: datetime) -> None:
    add_node(engine, now, ecc_uncorrected_count=[4] * 59 + [5])
    assert told(judge(engine, now)["GPU-1"]) == ("degraded", "ecc_uncorrected", "reset_gpu")


@pytest.mark.parametrize(
    ("bits", "rule"),
    [
        pytest.param([0x8] * 60, "hw_slowdown", id="slowdown"),
        pytest.param([0x48] * 60, "hw_thermal_slowdown", id="thermal"),
        pytest.param([0x88] * 60, "hw_power_brake", id="power-brake"),
        pytest.param([0] * 57 + [0x80] * 3, "hw_power_brake", id="three-polls"),
        pytest.param([0] * 55 + [0x80, 0, 0x80, 0, 0x80], "hw_power_brake", id="three-of-five"),
        pytest.param([0] * 58 + [0x80] * 2, "no_finding", id="two-polls"),
        pytest.param([0] * 30 + [0x80] + [0] * 29, "no_finding", id="a-blip"),
        pytest.param([0x80] * 50 + [0] * 10, "no_finding", id="over-by-now"),
        pytest.param([0x1] * 60, "no_finding", id="idle"),
        pytest.param([0x4] * 60, "no_finding", id="power-cap"),
        pytest.param([0x20] * 60, "no_finding", id="software-thermal"),
        pytest.param([None] * 60, "no_finding", id="not-measured"),
    ],
)
def test_slowed_clocks_speak_when_they_persist(
    engine: "Engine", now: datetime, bits: list[int | None], rule: str
) -> None:
    add_node(engine, now, clock_event_bits=bits)
    verdict = judge(engine, now)["GPU-1"]
    assert verdict.rule == rule
    assert verdict.state == ("healthy" if rule == "no_finding" else "degraded")


@pytest.mark.parametrize(
    ("widths", "state"),
    [
        pytest.param([16] * 50 + [8] * 10, "degraded", id="halved"),
        pytest.param([8] * 60, "healthy", id="always-narrow"),
        pytest.param([16] * 59 + [8], "healthy", id="a-blip"),
        pytest.param([8] * 50 + [16] * 10, "healthy", id="widened"),
        pytest.param([16] * 10 + [None] * 50, "unknown", id="not-measured-lately"),
    ],
)
def test_a_link_is_held_against_its_own_history(
    engine: "Engine", now: datetime, widths: list[int | None], state: str
) -> None:
    add_node(engine, now, pcie_width=widths)
    assert judge(engine, now)["GPU-1"].state == state


def silence(engine: "Engine", now: datetime, last: dict[int, int]) -> dict[str, Verdict]:
    for gpu, minutes_ago in last.items():
        engine.add_gpu(gpu)
        engine.add_samples(gpu, minutes(now, 120, minutes_ago - 1), temperature_c=40.0)
    return judge(engine, now)


def test_one_silent_gpu_among_speaking_ones_is_lost(engine: "Engine", now: datetime) -> None:
    verdicts = silence(engine, now, {1: 15, 2: 1, 3: 1})
    assert told(verdicts["GPU-1"]) == ("failed", "gpu_lost", "reboot_node")
    assert verdicts["GPU-1"].since == now - 15 * MINUTE
    assert {verdicts["GPU-2"].state, verdicts["GPU-3"].state} == {"healthy"}
    assert "n1" not in verdicts


def test_a_node_gone_silent_has_lost_its_exporter_and_not_its_gpus(engine: "Engine", now: datetime) -> None:
    verdicts = silence(engine, now, {1: 15, 2: 16, 3: 15})
    assert {told(verdicts[f"GPU-{gpu}"]) for gpu in (1, 2, 3)} == {("unknown", "exporter_lost", "none")}
    assert told(verdicts["n1"]) == ("unknown", "exporter_lost", "inspect")


def test_the_only_gpu_of_a_node_gone_silent_may_be_the_exporter(engine: "Engine", now: datetime) -> None:
    assert silence(engine, now, {1: 30})["GPU-1"].rule == "exporter_lost"


def test_a_short_silence_is_no_news(engine: "Engine", now: datetime) -> None:
    assert silence(engine, now, {1: 9, 2: 1})["GPU-1"].state == "healthy"


def test_a_gpu_that_is_seldom_asked_may_be_silent_for_longer(engine: "Engine", now: datetime) -> None:
    for gpu in (1, 2):
        engine.add_gpu(gpu)
        engine.add_samples(
            gpu, [now - 15 * MINUTE * back + MINUTE * gpu for back in range(20, 0, -1)], temperature_c=9.0
        )
    assert {verdict.state for verdict in judge(engine, now).values()} == {"healthy"}


def test_a_node_that_just_booted_is_given_time(engine: "Engine", now: datetime) -> None:
    add_xid(engine, now - 10 * MINUTE, 0, kind="boot", gpu_uuid=None)
    assert told(silence(engine, now, {1: 15, 2: 1})["GPU-1"]) == ("unknown", "booting", "none")


def test_a_gpu_lost_for_days_stays_lost(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    engine.add("gpu_hour", gpu=1, hour_at=now - timedelta(days=3), sample_count=60)
    assert silence(engine, now, {2: 1})["GPU-1"].rule == "gpu_lost"


def test_silence_does_not_hide_an_xid(engine: "Engine", now: datetime) -> None:
    add_xid(engine, now - 20 * MINUTE, 79)
    verdicts = silence(engine, now, {1: 20, 2: 20})
    assert told(verdicts["GPU-1"]) == ("failed", "xid_79", "reboot_node")
    assert verdicts["GPU-2"].state == "unknown"


@pytest.mark.parametrize(
    ("last_heard", "rule"),
    [pytest.param(9, "gpu_lost", id="silent-since"), pytest.param(1, "no_finding", id="speaks-again")],
)
def test_a_lost_gpu_that_speaks_is_found(engine: "Engine", now: datetime, last_heard: int, rule: str) -> None:
    add_xid(engine, now - 8 * MINUTE, 0, kind="gpu_lost")
    assert silence(engine, now, {1: last_heard, 2: 1})["GPU-1"].rule == rule


def test_samples_dated_in_the_future_do_not_keep_a_gpu_alive(engine: "Engine", now: datetime) -> None:
    engine.add_samples(1, [now + 5 * MINUTE], temperature_c=40.0)
    assert silence(engine, now, {1: 15, 2: 1})["GPU-1"].rule == "gpu_lost"


def test_the_order_of_rows_changes_nothing(engine: "Engine", now: datetime) -> None:
    add_node(engine, now, is_remap_pending=True)
    for code in (45, 13, 48):
        add_xid(engine, now - 5 * MINUTE, code)
    signals = engine.run(health_signals(engine.tables, now, POLICY))
    events = engine.run(health_events(engine.tables, now, POLICY))
    shuffled = events.sample(fraction=1, shuffle=True, seed=1)
    assert judge_health(signals, events, POLICY, now) == judge_health(signals.reverse(), shuffled, POLICY, now)


@pytest.mark.parametrize(
    ("field", "value"), [("polls_min", 11), ("silence_s", 0), ("corrected_per_hour_max", float("nan"))]
)
def test_a_policy_that_means_nothing_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(BadInput, match=field) as caught:
        HealthPolicy(**{field: value})  # type: ignore[arg-type]  # one field at a time, whichever it is
    assert caught.value.field == field
