"""What real fleets do that looks like a fault and is none: counters misread, boards replaced, chassis that differ."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from analytics.fault_history import gpu_faults, history_events
from analytics.health_policy import HealthPolicy
from analytics.telemetry_loss import TelemetryPolicy, judge_telemetry, telemetry_signals
from analytics.xid import XidOverride
from tests.analytics.test_health import add_node, add_xid, judge, minutes, told

if TYPE_CHECKING:
    from tests.analytics.conftest import Engine

ADDRESS = "00000000:01:00.0"
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("counts", "state"),
    [
        ([900_000] * 30 + [0] + [900_000] * 29, "healthy"),
        ([900_000] * 30 + [7] + [900_001] * 29, "healthy"),
        ([900_000] * 30 + [0] * 30, "healthy"),
        ([900_000] * 30 + [3] * 30, "healthy"),
        ([900_000] * 30 + [0] + [900_000 + 50_000 * poll for poll in range(29)], "degraded"),
        ([900_000] * 30 + [50_000 * poll for poll in range(30)], "degraded"),
    ],
    ids=["one zero", "one small value", "reset", "reset and few", "one zero in a storm", "reset and a storm"],
)
def test_a_counter_misread_once_or_reset_by_a_driver_is_no_storm(
    engine: "Engine", now: datetime, counts: list[int], state: str
) -> None:
    add_node(engine, now, ecc_corrected_count=counts)
    assert judge(engine, now)["GPU-1"].state == state


def test_an_uncorrected_error_of_long_ago_misread_once_is_not_a_new_one(engine: "Engine", now: datetime) -> None:
    add_node(engine, now, ecc_uncorrected_count=[2] * 30 + [0] + [2] * 29)
    assert judge(engine, now)["GPU-1"].state == "healthy"


def replace_board(engine: "Engine", now: datetime) -> None:
    """Give a node whose GPU-1 was heard of until two hours ago and whose GPU-9 has its place since an hour."""
    add_node(engine, now, gpus=(2, 3))
    engine.add_gpu(1, pci_bus_id=ADDRESS, first_seen_at=now - 400 * HOUR, last_seen_at=now - 2 * HOUR)
    engine.add_samples(1, [moment - 2 * HOUR for moment in minutes(now)], temperature_c=40.0, power_w=300.0)
    engine.add("gpu_hour", gpu=1, hour_at=now - 3 * HOUR, sample_count=60)
    engine.add_gpu(9, pci_bus_id=ADDRESS, first_seen_at=now - HOUR)
    engine.add_samples(9, minutes(now), temperature_c=40.0, power_w=300.0)


def test_a_board_that_was_replaced_is_not_lost(engine: "Engine", now: datetime) -> None:
    replace_board(engine, now)
    assert told(judge(engine, now)["GPU-1"]) == ("unknown", "replaced", "none")
    silence = TelemetryPolicy()
    found = judge_telemetry(engine.run(telemetry_signals(engine.tables, now, silence)), silence, now)
    assert [(verdict.subject, verdict.rule, verdict.state) for verdict in found] == [("GPU-1", "replaced", "unknown")]


def test_a_board_first_told_of_after_its_last_sample_has_not_replaced_itself(engine: "Engine", now: datetime) -> None:
    replace_board(engine, now)
    engine.rows["gpu"] = [row for row in engine.rows["gpu"] if row["gpu"] != 9]
    engine.rows["gpu"][-1]["first_seen_at"] = now
    assert judge(engine, now)["GPU-1"].rule == "gpu_lost"


def test_a_board_at_another_place_does_not_explain_a_loss(engine: "Engine", now: datetime) -> None:
    replace_board(engine, now)
    engine.rows["gpu"][-1]["pci_bus_id"] = "00000000:0A:00.0"
    assert judge(engine, now)["GPU-1"].rule == "gpu_lost"


@pytest.mark.parametrize(("hours_ago", "whose"), [(1.5, "GPU-1"), (0.5, "GPU-9")])
def test_an_error_by_its_address_is_that_boards_which_was_there_then(
    engine: "Engine", now: datetime, hours_ago: float, whose: str
) -> None:
    replace_board(engine, now)
    add_xid(engine, now - hours_ago * HOUR, 79, gpu_uuid=None, pci_bus_id="0000:01:00")
    faults = engine.run(history_events(engine.tables, now, 30))
    assert faults.get_column("gpu_uuid").to_list() == [whose]
    verdicts = judge(engine, now)
    assert [subject for subject, verdict in verdicts.items() if verdict.rule == "xid_79"] == [whose]


@pytest.mark.parametrize(
    ("narrow", "ill"),
    [((8, 9, 10, 11), set()), ((8,), {"GPU-8"})],
    ids=["a whole chassis", "one board of it"],
)
def test_boards_of_a_narrow_chassis_are_well_and_one_narrow_board_is_not(
    engine: "Engine", now: datetime, narrow: tuple[int, ...], ill: set[str]
) -> None:
    for gpu in range(20):
        engine.add_gpu(gpu, f"n{gpu // 4}", model="L40S")
        engine.add_samples(gpu, minutes(now), temperature_c=40.0, pcie_width=8 if gpu in narrow else 16)
    found = judge(engine, now)
    assert {subject for subject, verdict in found.items() if verdict.state != "healthy"} == ill


@pytest.mark.parametrize("bits", [0x2, 0x4, 0x20, 0x100], ids=["set clocks", "power cap", "thermal", "display"])
def test_clocks_that_a_policy_holds_low_are_not_stuck(engine: "Engine", now: datetime, bits: int) -> None:
    add_node(engine, now, utilization=1.0, sm_clock_mhz=345, clock_event_bits=bits)
    engine.rows["gpu"][0]["sm_clock_max_mhz"] = 1980
    assert judge(engine, now)["GPU-1"].state == "healthy"
    for row in engine.rows["gpu_sample"]:
        row["clock_event_bits"] = 0
    assert judge(engine, now)["GPU-1"].rule == "clock_stuck_low"


def test_boards_told_in_another_order_after_a_restart_stay_themselves(engine: "Engine", now: datetime) -> None:
    add_node(engine, now, gpus=(1, 2, 3, 4), ecc_corrected_count=[1000 * poll for poll in range(60)])
    before = {subject: told(verdict) for subject, verdict in judge(engine, now).items()}
    for row, place in zip(engine.rows["gpu"], (3, 0, 1, 2), strict=True):
        row["gpu_index"] = place
    assert {subject: told(verdict) for subject, verdict in judge(engine, now).items()} == before
    assert before["GPU-1"][1] == "ecc_corrected_storm"


def test_a_whole_node_gone_is_never_a_dead_gpu(engine: "Engine", now: datetime) -> None:
    add_node(engine, now)
    for gpu in (5, 6):
        engine.add_gpu(gpu, "spot-1")
        engine.add_samples(gpu, [moment - 30 * timedelta(minutes=1) for moment in minutes(now)], temperature_c=40.0)
    verdicts = judge(engine, now)
    assert {verdicts[name].state for name in ("GPU-5", "GPU-6", "spot-1")} == {"unknown"}
    assert {verdicts[name].action for name in ("GPU-5", "GPU-6")} == {"none"}


@pytest.mark.parametrize(
    ("override", "kinds"),
    [
        ((), ["xid_79"]),
        ((XidOverride(79, action="none"),), []),
        ((XidOverride(13, action="reset_gpu"),), ["xid_13", "xid_79"]),
        ((XidOverride(4242, action="reboot_node"),), ["xid_4242", "xid_79"]),
    ],
    ids=["none", "one fewer", "one more", "one that nobody documents"],
)
def test_a_sites_own_words_on_xids_reach_the_record_and_the_risk(
    engine: "Engine", now: datetime, override: tuple[XidOverride, ...], kinds: list[str]
) -> None:
    add_node(engine, now)
    for code in (13, 79, 4242):
        add_xid(engine, now - HOUR, code)
    rows = engine.run(history_events(engine.tables, now, 30, override))
    assert sorted(gpu_faults(rows, override).get_column("kind")) == kinds
    own = judge(engine, now, HealthPolicy(overrides=override))["GPU-1"]
    assert (own.rule == "xid_79") == ("xid_79" in kinds)
