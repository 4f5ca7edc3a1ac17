from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from simulator import truth
from simulator.fault_kinds import KINDS
from simulator.faults_spec import FAULT_KINDS, FaultSpec, Injection
from simulator.spec import FleetSpec
from simulator.step import advance, build, step
from simulator.world import World

Collect = Callable[..., dict[str, pl.DataFrame]]
WithFaults = Callable[..., FleetSpec]
STRUCK = 8
BEGINS, LASTS = 4.0, 6.0


@pytest.fixture
def strike(with_faults: WithFaults, collect: Collect) -> Callable[[str], tuple[World, dict[str, pl.DataFrame]]]:
    def run(kind: str) -> tuple[World, dict[str, pl.DataFrame]]:
        world = build(with_faults(Injection(kind, BEGINS, STRUCK, LASTS)))
        return world, collect(world)

    return run


Strike = Callable[[str], tuple[World, dict[str, pl.DataFrame]]]


def of_gpu(world: World, samples: pl.DataFrame, gpu: int = STRUCK) -> pl.DataFrame:
    since, until = world.moment(int(BEGINS * 3600)), world.moment(int((BEGINS + LASTS) * 3600))
    return samples.filter(pl.col("gpu_uuid") == world.fabric.gpu_uuid[gpu]).with_columns(
        during=(pl.col("ts") >= since) & (pl.col("ts") < until), after=pl.col("ts") >= until
    )


def test_every_kind_of_fault_has_its_recipe() -> None:
    assert set(KINDS) == set(FAULT_KINDS)


@pytest.mark.parametrize(
    ("kind", "codes"),
    [
        ("xid_79", [79]), ("xid_48", [48, 63]), ("xid_94", [63, 94]), ("xid_95", [95]), ("xid_74", [74]),
        ("xid_31", [31]), ("xid_13", [13]), ("xid_43", [43]), ("xid_45", [45]), ("remap_pending", [63]),
        ("remap_failed", [64]), ("ecc_storm", []), ("lost_gpu", []), ("pcie_down", []),
    ],
)  # fmt: skip
def test_logs_tell_the_codes_of_a_fault_with_the_address_of_its_gpu(
    kind: str, codes: list[int], strike: Strike
) -> None:
    world, frames = strike(kind)
    events = frames.get("event", pl.DataFrame(schema={"kind": pl.String, "code": pl.Int32}))
    xids = events.filter(pl.col("kind") == "xid")
    assert sorted(xids["code"].unique()) == codes
    if codes:
        assert set(xids["gpu_uuid"]) == {world.fabric.gpu_uuid[STRUCK]}
        assert xids["message"].str.contains(r"^NVRM: Xid \(PCI:0000:[0-9a-f]{2}:00\): \d+, ").all()


@pytest.mark.parametrize("kind", ["xid_79", "lost_gpu"])
def test_a_lost_gpu_vanishes_while_its_mates_go_on_and_comes_back(kind: str, strike: Strike) -> None:
    world, frames = strike(kind)
    lost, mate = (of_gpu(world, frames["gpu_sample"], gpu) for gpu in (STRUCK, STRUCK + 1))
    assert lost.filter("during").height == 0
    assert lost.filter("after").height > 0
    assert mate.filter("during").height == LASTS * 60
    assert set(frames["event"].filter(pl.col("kind") == "boot")["node"]) == {
        world.fabric.node_name[int(world.fabric.gpu_node[STRUCK])]
    }


def test_a_dead_exporter_hides_its_node_and_hurts_no_work(strike: Strike) -> None:
    world, frames = strike("dead_exporter")
    for gpu in world.fabric.gpus_of_node(int(world.fabric.gpu_node[STRUCK])):
        assert of_gpu(world, frames["gpu_sample"], gpu).filter("during").height == 0
    assert of_gpu(world, frames["gpu_sample"], 0).filter("during").height > 0
    assert frames["event"]["kind"].to_list() == ["exporter_lost"]
    assert "failed" not in frames["job"]["status"].to_list()


def test_a_boot_wave_hides_a_rack_and_tells_a_boot_of_each_node(strike: Strike) -> None:
    world, frames = strike("boot_wave")
    rack = world.fabric.node_rack[int(world.fabric.gpu_node[STRUCK])]
    nodes = [name for name, place in zip(world.fabric.node_name, world.fabric.node_rack, strict=True) if place == rack]
    assert sorted(frames["event"].filter(pl.col("kind") == "boot")["node"]) == sorted(nodes)
    assert of_gpu(world, frames["gpu_sample"]).filter("during").height == 0
    assert "failed" in frames["job"]["status"].to_list()
    assert truth.faults(world)["is_actionable"].to_list() == [False] * len(nodes)


@pytest.mark.parametrize(
    ("kind", "column", "value"),
    [
        ("remap_pending", "is_remap_pending", True),
        ("xid_48", "is_remap_pending", True),
        ("remap_failed", "is_remap_failed", True),
        ("pcie_down", "pcie_width", 8),
        ("xid_95", "recovery_action", 1),
    ],
)
def test_a_column_shows_the_fault_while_it_lasts_and_no_longer(
    kind: str, column: str, value: float, strike: Strike
) -> None:
    world, frames = strike(kind)
    samples = of_gpu(world, frames["gpu_sample"])
    assert samples.filter("during").height > 0
    assert (samples.filter("during")[column] == value).all()
    assert (samples.filter(~pl.col("during"))[column] != value).all()
    others = frames["gpu_sample"].filter(pl.col("gpu_uuid") != world.fabric.gpu_uuid[STRUCK])
    assert (others[column].drop_nulls() != value).all()


@pytest.mark.parametrize(("kind", "bit"), [("thermal_throttle", 0x40), ("power_brake", 0x80)])
def test_throttling_sets_its_bit_all_the_time_and_slows_the_clock(kind: str, bit: int, strike: Strike) -> None:
    world, frames = strike(kind)
    samples = of_gpu(world, frames["gpu_sample"]).with_columns(has_bit=(pl.col("clock_event_bits") & bit) == bit)
    assert samples.filter("during")["has_bit"].all()
    assert not samples.filter(~pl.col("during"))["has_bit"].any()
    model = world.fabric.model_of(STRUCK)
    assert samples.filter("during")["sm_clock_mhz"].max() < model.sm_clock_mhz  # type: ignore[operator]  # max of a full column is a number
    if kind == "thermal_throttle":
        assert samples.filter("during")["temperature_c"].min() >= model.slowdown_c  # type: ignore[operator]  # as above


def test_an_ecc_storm_counts_corrected_errors_up_and_the_lifetime_keeps_them(strike: Strike) -> None:
    world, frames = strike("ecc_storm")
    samples = of_gpu(world, frames["gpu_sample"]).sort("ts")
    during = samples.filter("during")["ecc_corrected_count"]
    assert during.is_sorted()
    assert during.max() == pytest.approx(3000 * LASTS, rel=0.01)
    assert (samples.filter("after")["ecc_corrected_count"] == 0).all()
    assert samples["ecc_corrected_lifetime_count"].is_sorted()
    assert samples["ecc_corrected_lifetime_count"][-1] >= 3000 * LASTS


def test_work_on_a_failed_gpu_stops_with_its_whole_gang_and_is_queued_again(with_faults: WithFaults) -> None:
    world = build(with_faults(Injection("xid_79", BEGINS, STRUCK, LASTS)))
    advance(world, world.moment(int(BEGINS * 3600)))
    task_index = world.task_of_unit(int(world.fabric.gpu_first_unit[STRUCK]))
    assert task_index is not None
    task = world.tasks[task_index]
    pods = [world.pods[pod] for pod in task.pods]
    step(world, timedelta(seconds=1))
    assert task.status == "failed"
    assert all(pod.ends_s == BEGINS * 3600 for pod in pods)
    heir = world.tasks[world.workloads[task.workload].live[-1]]
    assert heir.submitted_s == BEGINS * 3600
    assert heir.work_s < task.work_s or heir.work_s == 60


def test_nothing_is_placed_on_a_lost_gpu(strike: Strike) -> None:
    world, frames = strike("xid_79")
    begun = frames["pod_allocation"].filter(
        (pl.col("gpu_uuid") == world.fabric.gpu_uuid[STRUCK])
        & (pl.col("starts_at") > world.moment(int(BEGINS * 3600)))
        & (pl.col("starts_at") < world.moment(int((BEGINS + LASTS) * 3600)))
    )
    assert begun.height == 0


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_truth_names_each_fault_and_what_it_calls_for(kind: str, strike: Strike) -> None:
    world, _ = strike(kind)
    faults = truth.faults(world)
    assert faults["kind"].unique().to_list() == [kind]
    assert faults["starts_at"][0] == world.moment(int(BEGINS * 3600))
    assert faults["ends_at"][0] == world.moment(int((BEGINS + LASTS) * 3600))
    is_decoy = kind in {"xid_31", "xid_13", "xid_43", "xid_45", "dead_exporter", "boot_wave"}
    assert faults["is_actionable"].to_list() == [not is_decoy] * faults.height
    assert (faults["expected_action"] == "none").all() == is_decoy


def test_faults_that_have_not_begun_are_not_told_and_running_ones_have_no_end(with_faults: WithFaults) -> None:
    world = build(with_faults(Injection("pcie_down", 1.0, 0, 5.0), Injection("pcie_down", 20.0, 1, 5.0)))
    step(world, timedelta(hours=2))
    faults = truth.faults(world)
    assert faults.height == 1
    assert faults["ends_at"].to_list() == [None]


def test_random_faults_strike_no_gpu_twice_at_once(spec: FleetSpec) -> None:
    world = build(replace(spec, faults=FaultSpec(rate_factor=60.0)))
    step(world, timedelta(days=1))
    assert len({fault.kind for fault in world.faults}) > 10
    for one in world.faults:
        for other in world.faults[one.index + 1 :]:
            if set(one.gpus) & set(other.gpus):
                assert other.starts_s >= one.ends_s
