"""Whole fleets with known faults: what is ill is found, and nothing else; and nothing that is not known is healthy."""

import math
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl
import pytest

from analytics.health import judge_health
from analytics.health_policy import HealthPolicy
from analytics.health_signals import health_events, health_signals
from fleet.tables import EVENT, GPU, GPU_SAMPLE, NODE
from fleet.verdict import Severity, Verdict

if TYPE_CHECKING:
    from tests.analytics.conftest import Engine

POLICY = HealthPolicy()
POLLS = 12
ACTING = {"drain", "reset_gpu", "reboot_node", "run_diagnostics", "replace_gpu"}
PLAIN = {
    "temperature_c": pl.lit(45.0), "power_w": pl.lit(300.0), "clock_event_bits": pl.lit(0),
    "is_remap_pending": pl.lit(value=False), "is_remap_failed": pl.lit(value=False), "recovery_action": pl.lit(0),
    "ecc_corrected_count": pl.lit(0), "ecc_uncorrected_count": pl.lit(0), "pcie_width": pl.lit(16),
    "nvlink_active_count": pl.lit(18), "thermal_margin_c": pl.lit(30.0),
}  # fmt: skip


def put_fleet(engine: "Engine", now: datetime, nodes: int, per_node: int = 8, **changed: pl.Expr) -> None:
    """Put a fleet of one model into the engine: `changed` are expressions over gpu, place (node), poll."""
    gpus = pl.DataFrame({"gpu": pl.int_range(nodes * per_node, eager=True, dtype=pl.UInt32)}).with_columns(
        uuid=pl.format("GPU-{}", "gpu"),
        cluster=pl.lit("c1"),
        node=pl.format("n{}", pl.col("gpu") // per_node),
        model=pl.lit("NVIDIA H100 80GB HBM3"),
        driver=pl.lit("570.86.15"),
    )
    engine.put("gpu", gpus.select(name for name in GPU.names() if name in gpus.columns))
    polls = pl.DataFrame({"poll": range(POLLS)}).with_columns(
        ts=now - pl.duration(minutes=1) * (POLLS - pl.col("poll"))
    )
    samples = gpus.select("gpu", place=pl.col("gpu") // per_node).join(polls, how="cross").with_columns(**PLAIN)
    samples = samples.with_columns(**changed)
    engine.put("gpu_sample", samples.select(name for name in GPU_SAMPLE.names() if name in samples.columns))


def put_events(engine: "Engine", rows: list[dict[str, object]]) -> None:
    base = {"cluster": "c1", "source": "test"}
    engine.put("event", pl.DataFrame([base | row for row in rows], schema=EVENT.schema("stored")))


def judged(engine: "Engine", now: datetime) -> list[Verdict]:
    signals = engine.run(health_signals(engine.tables, now, POLICY))
    events = engine.run(health_events(engine.tables, now, POLICY))
    return judge_health(signals, events, POLICY, now)


def ill(verdicts: list[Verdict]) -> dict[str, tuple[str, str | None]]:
    return {verdict.subject: (verdict.rule, verdict.action) for verdict in verdicts if verdict.state != "healthy"}


def test_one_gpu_of_1152_with_a_storm_of_corrected_errors_is_found_alone(engine: "Engine", now: datetime) -> None:
    storm = pl.when(pl.col("gpu") == 777).then(pl.col("poll") * 60 * 17_700 + 54_700_000_000).otherwise(5)
    put_fleet(engine, now, 144, ecc_corrected_count=storm)
    assert list(ill(judged(engine, now)).items()) == [("GPU-777", ("ecc_corrected_storm", "drain"))]


@pytest.mark.parametrize("ended_polls_ago", [0, 1, 4])
def test_a_boot_wave_cordons_nobody_while_a_dead_link_is_found(
    engine: "Engine", now: datetime, ended_polls_ago: int
) -> None:
    is_booting = (pl.col("place") // 18 * 18 + pl.col("place") % 18 < 214) & (
        pl.col("poll") == POLLS - 1 - ended_polls_ago
    )
    is_dead = (pl.col("gpu") == 1111) & (pl.col("poll") >= POLLS - 3)
    links = pl.when(is_dead).then(17).when(is_booting).then(0).otherwise(18)
    put_fleet(engine, now, 288, 4, nvlink_active_count=links)
    boots = [{"node": f"n{place}", "kind": "boot", "ts": now - timedelta(minutes=6)} for place in range(214)]
    put_events(engine, boots)
    assert ill(judged(engine, now)) == {"GPU-1111": ("nvlink_down", "reset_gpu")}


def test_a_link_that_was_dead_from_the_first_is_told_by_its_peers(engine: "Engine", now: datetime) -> None:
    put_fleet(engine, now, 3, nvlink_active_count=pl.when(pl.col("gpu") == 5).then(17).otherwise(18))
    assert ill(judged(engine, now)) == {"GPU-5": ("nvlink_down", "reset_gpu")}


def test_boards_without_a_bridge_are_not_ill(engine: "Engine", now: datetime) -> None:
    put_fleet(engine, now, 3, nvlink_active_count=pl.when(pl.col("gpu") % 8 == 5).then(0).otherwise(12))
    assert ill(judged(engine, now)) == {}


def test_a_power_brake_is_found_by_the_bit_also_where_the_power_is_not_watched(engine: "Engine", now: datetime) -> None:
    is_braked = pl.col("place") % 2 == 0
    put_fleet(
        engine, now, 288, 8,
        clock_event_bits=pl.when(is_braked).then(0x88).otherwise(0x4),
        power_w=pl.when(pl.col("place") % 100 < 69).then(pl.when(is_braked).then(150.0).otherwise(600.0)),
    )  # fmt: skip
    found = ill(judged(engine, now))
    assert set(found) == {f"GPU-{gpu}" for gpu in range(288 * 8) if gpu // 8 % 2 == 0}
    assert set(found.values()) == {("hw_power_brake", "drain")}


def test_churn_of_jobs_is_never_fatal(engine: "Engine", now: datetime) -> None:
    put_fleet(engine, now, 3)
    rows = [
        {
            "ts": now - timedelta(hours=3) + timedelta(seconds=16 * number),
            "node": f"n{number % 3}",
            "gpu_uuid": f"GPU-{8 * (number % 3) + number % 8}",
            "kind": "xid",
            "code": 45,
            "message": "NVRM: Xid (PCI:0000:9b:00): 45, pid=7, name=python3, Ch 00000010",
        }
        for number in range(672)
    ]  # fmt: skip
    put_events(engine, rows)
    verdicts = judged(engine, now)
    assert ill(verdicts) == {}
    assert {verdict.action for verdict in verdicts} <= {"none"}
    assert [verdict for verdict in verdicts if verdict.severity in {Severity.WARNING, Severity.CRITICAL}] == []


def each_code_on_its_own_gpu(engine: "Engine", now: datetime, codes: list[int]) -> dict[int, Verdict]:
    put_fleet(engine, now, math.ceil(len(codes) / 8))
    ts = now - timedelta(minutes=5)
    put_events(
        engine,
        [
            {"ts": ts, "node": f"n{place // 8}", "gpu_uuid": f"GPU-{place}", "kind": "xid", "code": code}
            for place, code in enumerate(codes)
        ],
    )
    by_gpu = {verdict.subject: verdict for verdict in judged(engine, now) if verdict.subject_kind == "gpu"}
    return {code: by_gpu[f"GPU-{place}"] for place, code in enumerate(codes)}


LEAST = {
    "RESET_GPU": {"reset_gpu", "reboot_node", "replace_gpu"}, "WORKFLOW_XID_48": {"reset_gpu"},
    "WORKFLOW_NVLINK_ERR": {"reset_gpu"}, "RESTART_BM": {"reboot_node"}, "RESTART_VM": {"reboot_node"},
    "CHECK_MECHANICALS": {"drain"},
}  # fmt: skip


def test_every_code_that_asks_for_action_gets_it_and_no_other_leads_to_a_cordon(
    engine: "Engine", now: datetime, data_root: "object"
) -> None:
    catalogue = pl.read_csv(f"{data_root}/nvidia/xid.csv").filter(pl.col("severity") != "unused")
    immediate = dict(catalogue.select("code", "nvidia_immediate").drop_nulls().iter_rows())
    verdicts = each_code_on_its_own_gpu(engine, now, list(immediate))
    asked = {code: LEAST[action] for code, action in immediate.items() if action in LEAST}
    calm = [
        code for code, action in immediate.items() if action in {"RESTART_APP", "IGNORE", "WORKFLOW_XID_45"}
    ]  # fmt: skip
    assert len(asked) >= 19
    assert len(calm) >= 68
    assert {code: verdicts[code].action for code, least in asked.items() if verdicts[code].action not in least} == {}
    assert [code for code in asked if verdicts[code].state not in {"failing", "failed"}] == []
    assert [code for code in calm if verdicts[code].action in ACTING or verdicts[code].state != "healthy"] == []


def at_place(gpc: int, tpc: int) -> str:
    return f"NVRM: Xid (PCI:0000:01:00): 13, Graphics SM Warp Exception on (GPC {gpc}, TPC {tpc}, SM 0): Out Of Range"


BURSTS = {
    "same place twice in a day": ([[(1, 3)], [(1, 3)]], True),
    "other places": ([[(1, 3)], [(2, 5)], [(4, 0)]], False),
    "one burst at one place": ([[(1, 3), (1, 3), (1, 3)]], False),
    "all over the chip, twice": ([[(g, 1) for g in range(7)]] * 2, False),
    "same place between others": ([[(1, 3)], [(2, 5)], [(1, 3)]], True),
}


@pytest.mark.parametrize(("bursts", "is_suspect"), BURSTS.values(), ids=BURSTS)
def test_a_programs_error_speaks_for_the_hardware_only_at_the_same_place(
    engine: "Engine", now: datetime, *, bursts: list[list[tuple[int, int]]], is_suspect: bool
) -> None:
    put_fleet(engine, now, 1)
    put_events(
        engine,
        [
            {
                "ts": now - timedelta(hours=20) + timedelta(hours=3 * number),
                "node": "n0", "gpu_uuid": "GPU-1", "kind": "xid", "code": 13,
                "message": "\n".join(at_place(*place) for place in places),
            }
            for number, places in enumerate(bursts)
        ],
    )  # fmt: skip
    found = ill(judged(engine, now))
    assert found == ({"GPU-1": ("xid_same_place", "run_diagnostics")} if is_suspect else {})


@pytest.mark.parametrize(
    ("gpus", "suspects"), [((1, 1), {"GPU-1"}), ((1, 2), set()), ((1, 1, 2), set()), ((1,), set())]
)
def test_a_page_fault_again_on_one_gpu_and_no_other_of_its_node_is_suspect(
    engine: "Engine", now: datetime, gpus: tuple[int, ...], suspects: set[str]
) -> None:
    put_fleet(engine, now, 1)
    rows = [
        {"ts": now - timedelta(hours=9 - hour), "node": "n0", "gpu_uuid": f"GPU-{gpu}", "kind": "xid", "code": 31}
        for hour, gpu in enumerate(gpus)
    ]
    put_events(engine, rows)
    assert set(ill(judged(engine, now))) == suspects


@pytest.mark.parametrize(
    ("code", "slice_ill", "gpu_state"), [(94, True, "healthy"), (13, True, "healthy"), (95, False, "failing")]
)
def test_a_slices_error_marks_the_slice_and_a_resets_the_whole_gpu(
    engine: "Engine", now: datetime, *, code: int, slice_ill: bool, gpu_state: str
) -> None:
    put_fleet(engine, now, 1)
    event = {"ts": now - timedelta(minutes=5), "node": "n0", "gpu_uuid": "GPU-1", "kind": "xid", "code": code}
    put_events(engine, [event | {"slice_uuid": "MIG-7", "gpu_instance": 2}])
    verdicts = judged(engine, now)
    slices = [verdict for verdict in verdicts if verdict.subject_kind == "slice"]
    assert [(verdict.subject, verdict.action) for verdict in slices] == (
        [("MIG-7", "restart_application")] if slice_ill else []
    )
    (parent,) = [verdict for verdict in verdicts if verdict.subject == "GPU-1"]
    assert parent.state == gpu_state
    assert slice_ill == (parent.rule == "no_finding")


def test_a_slice_that_only_its_instance_names_is_still_not_its_whole_gpu(engine: "Engine", now: datetime) -> None:
    put_fleet(engine, now, 1)
    event = {"ts": now - timedelta(minutes=5), "node": "n0", "gpu_uuid": "GPU-1", "kind": "xid", "code": 94}
    put_events(engine, [event | {"gpu_instance": 3}])
    subjects = [verdict.subject for verdict in judged(engine, now) if verdict.subject_kind == "slice"]
    assert subjects == ["GPU-1/gpu-instance-3"]


def test_two_sources_words_on_one_error_are_one(engine: "Engine", now: datetime) -> None:
    put_fleet(engine, now, 1)
    line = "NVRM: Xid (PCI:0000:01:00): 154, GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)"
    base = {"node": "n0", "gpu_uuid": "GPU-1", "kind": "xid", "code": 154}
    at = now - timedelta(minutes=5)
    put_events(
        engine, [base | {"ts": at, "message": "xid 154"}, base | {"ts": at + timedelta(seconds=1), "message": line}]
    )
    (verdict,) = [verdict for verdict in judged(engine, now) if verdict.subject == "GPU-1"]
    assert (verdict.action, verdict.evidence["count"]) == ("reboot_node", 1)


def test_of_recovery_actions_the_last_word_counts(engine: "Engine", now: datetime) -> None:
    put_fleet(engine, now, 1)
    base = {"node": "n0", "gpu_uuid": "GPU-1", "kind": "xid", "code": 154}
    words = ["from 0x0 (None) to 0x1 (GPU Reset Required)", "from 0x1 (GPU Reset Required) to 0x0 (None)"]
    put_events(
        engine,
        [base | {"ts": now - timedelta(minutes=9 - 3 * place), "message": text} for place, text in enumerate(words)],
    )
    assert ill(judged(engine, now)) == {}


def test_a_switch_error_that_is_always_fatal_is_its_nodes(engine: "Engine", now: datetime) -> None:
    put_fleet(engine, now, 3)
    base = {"ts": now - timedelta(minutes=5), "kind": "sxid", "pci_bus_id": "0000:c1:00"}
    put_events(
        engine,
        [
            base | {"node": "n0", "code": 12020},
            base | {"node": "n1", "code": 20034},
            base | {"node": "n2", "code": 11012},
        ],
    )
    found = {verdict.subject: verdict for verdict in judged(engine, now) if verdict.subject_kind == "node"}
    told = {node: (verdict.state, verdict.action) for node, verdict in found.items()}
    assert told == {"n0": ("failed", "reboot_node"), "n1": ("degraded", "inspect"), "n2": ("healthy", "none")}


def test_one_with_another_driver_than_its_pool_is_told_but_not_ill(engine: "Engine", now: datetime) -> None:
    put_fleet(engine, now, 4)
    engine.frames["gpu"] = engine.frames["gpu"].with_columns(
        driver=pl.when(pl.col("node") == "n3").then(pl.lit("535.1")).otherwise("driver")
    )
    verdicts = judged(engine, now)
    assert ill(verdicts) == {}
    skewed = {verdict.subject for verdict in verdicts if verdict.rule == "driver_skew"}
    assert skewed == {f"GPU-{gpu}" for gpu in range(24, 32)}


def test_half_a_rollout_is_nobodys_fault(engine: "Engine", now: datetime) -> None:
    put_fleet(engine, now, 4)
    engine.frames["gpu"] = engine.frames["gpu"].with_columns(
        driver=pl.when(pl.col("gpu") < 16).then(pl.lit("535.1")).otherwise("driver")
    )
    assert {verdict.rule for verdict in judged(engine, now)} == {"no_finding"}


def test_a_node_with_fewer_gpus_than_it_should_have_is_told(engine: "Engine", now: datetime) -> None:
    put_fleet(engine, now, 2)
    nodes = {"cluster": ["c1"] * 2, "node": ["n0", "n1"], "gpus": [8, 9]}
    engine.put("node", pl.DataFrame(nodes, schema_overrides={"gpus": NODE.schema()["gpus"]}))
    assert ill(judged(engine, now)) == {"n1": ("gpu_count_low", "inspect")}


@pytest.mark.parametrize(
    ("state", "minutes_up", "is_found"),
    [("in_progress", 60, True), ("in_progress", 5, False), ("completed", 60, False), ("not_supported", 60, False)],
)
def test_a_fabric_that_is_not_ready_long_after_the_boot_is_found(
    engine: "Engine", now: datetime, *, state: str, minutes_up: int, is_found: bool
) -> None:
    put_fleet(engine, now, 1, 2)
    engine.frames["gpu"] = engine.frames["gpu"].with_columns(
        fabric_state=pl.when(pl.col("gpu") == 0).then(pl.lit(state)).otherwise(pl.lit("completed"))
    )
    put_events(engine, [{"ts": now - timedelta(minutes=minutes_up), "node": "n0", "kind": "boot"}])
    assert ill(judged(engine, now)) == ({"GPU-0": ("fabric_not_ready", "drain")} if is_found else {})


def test_a_link_that_is_slow_only_at_rest_is_well_and_one_slow_under_load_is_not(
    engine: "Engine", now: datetime
) -> None:
    late = pl.col("poll") >= POLLS - 4
    put_fleet(
        engine, now, 1, 3,
        utilization=pl.when((pl.col("gpu") == 0) & late).then(0.0).otherwise(1.0),
        pcie_generation=pl.when((pl.col("gpu") < 2) & late).then(1).otherwise(5),
    )  # fmt: skip
    assert ill(judged(engine, now)) == {"GPU-1": ("pcie_generation_down", "drain")}


def test_replays_are_counted_against_speed_and_width(engine: "Engine", now: datetime) -> None:
    # 1e-12 of 16 lanes of 32 Gbit/s over 11 minutes is 338 errors; of one lane of 2.5 Gbit/s, less than two.
    put_fleet(
        engine, now, 1, 4,
        pcie_generation=pl.when(pl.col("gpu") < 2).then(5).otherwise(1),
        pcie_width=pl.when(pl.col("gpu") < 2).then(16).otherwise(1),
        pcie_replay_count=pl.col("poll") * pl.col("gpu").replace_strict([0, 1, 2, 3], [10, 60, 0, 1]).cast(pl.Int64),
    )  # fmt: skip
    engine.frames["gpu"] = engine.frames["gpu"].with_columns(model=pl.format("m{}", "gpu"))
    assert ill(judged(engine, now)) == {"GPU-1": ("pcie_replays", "inspect"), "GPU-3": ("pcie_replays", "inspect")}


def test_a_clock_stuck_low_under_load_without_a_reason_is_found(engine: "Engine", now: datetime) -> None:
    put_fleet(
        engine, now, 1, 4,
        utilization=pl.when(pl.col("gpu") == 2).then(0.0).otherwise(1.0),
        sm_clock_mhz=pl.when(pl.col("gpu") == 0).then(1900).otherwise(345),
        clock_event_bits=pl.when(pl.col("gpu") == 3).then(0x2).otherwise(0),
    )  # fmt: skip
    engine.frames["gpu"] = engine.frames["gpu"].with_columns(sm_clock_max_mhz=pl.lit(1980, pl.Int32()))
    assert ill(judged(engine, now)) == {"GPU-1": ("clock_stuck_low", "drain")}


def test_memory_that_is_used_up_is_found_by_its_architectures_policy(engine: "Engine", now: datetime) -> None:
    put_fleet(
        engine, now, 1, 4,
        rows_remapped_uncorrected_count=pl.when(pl.col("gpu") == 0).then(512).otherwise(511),
        retired_page_count=pl.when(pl.col("gpu") == 1).then(60).when(pl.col("gpu") == 3).then(60).otherwise(59),
    )  # fmt: skip
    engine.frames["gpu"] = engine.frames["gpu"].with_columns(
        architecture=pl.when(pl.col("gpu") == 1).then(pl.lit("Volta")).otherwise(pl.lit("Hopper"))
    )
    assert ill(judged(engine, now)) == {
        "GPU-0": ("remap_exhausted", "replace_gpu"), "GPU-1": ("pages_exhausted", "replace_gpu")
    }  # fmt: skip


def test_the_width_that_most_of_a_model_have_is_its_width(engine: "Engine", now: datetime) -> None:
    # In clouds whole pools of healthy boards have 8 of 16 lanes; one with 4 has not.
    put_fleet(engine, now, 3, pcie_width=pl.when(pl.col("gpu") == 9).then(4).otherwise(8))
    assert ill(judged(engine, now)) == {"GPU-9": ("pcie_width_below_peers", "drain")}


GARBAGE = {"missing": None, "NaN": math.nan, "negative": -1, "huge": 2**62}
SIGNALS = (
    "temperature_c", "thermal_margin_c", "power_w", "clock_event_bits", "ecc_corrected_count",
    "ecc_uncorrected_count", "pcie_width", "nvlink_active_count", "recovery_action",
)  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_a_signal_that_turns_to_garbage_is_never_healthy(
    engine: "Engine", now: datetime, garbage: float | None
) -> None:
    late = pl.col("poll") >= POLLS - 11
    changed = {}
    for place, name in enumerate(SIGNALS):
        is_float = GPU_SAMPLE.schema()[name].is_float()
        if (isinstance(garbage, float) and not is_float) or (garbage == -1 and name == "thermal_margin_c"):
            continue
        dtype = GPU_SAMPLE.schema()[name]
        value = garbage if garbage is None or is_float or dtype == pl.Int64 else min(garbage, 2**31 - 1)
        bad = pl.lit(-1000.0 if garbage == -1 and is_float else value, dtype)
        changed[name] = pl.when((pl.col("gpu") == place) & late).then(bad).otherwise(PLAIN[name])
    put_fleet(engine, now, 2, 16, **changed)
    # Garbage once in a while is a blip; here it stands for eleven minutes.
    found = ill(judged(engine, now))
    expected = {f"GPU-{place}" for place, name in enumerate(SIGNALS) if name in changed}
    assert set(found) == expected
    assert {rule for rule, _ in found.values()} <= {"signal_implausible", "signal_lost"}


def test_a_gpu_of_which_nothing_was_measured_is_not_healthy(engine: "Engine", now: datetime) -> None:
    put_fleet(engine, now, 1, 4, **{name: pl.lit(None, GPU_SAMPLE.schema()[name]) for name in PLAIN})
    assert {verdict.rule for verdict in judged(engine, now)} == {"no_signal"}


@pytest.mark.parametrize(("minutes_ago", "is_found"), [(0.2, True), (9, False)])
def test_a_probe_that_hangs_is_the_nodes_until_it_is_heard_of_again(
    engine: "Engine", now: datetime, *, minutes_ago: float, is_found: bool
) -> None:
    put_fleet(engine, now, 1)
    put_events(engine, [{"ts": now - timedelta(minutes=minutes_ago), "node": "n0", "kind": "probe_hang"}])
    assert ill(judged(engine, now)) == ({"n0": ("probe_hang", "reboot_node")} if is_found else {})
