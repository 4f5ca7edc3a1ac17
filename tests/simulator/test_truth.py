from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import polars as pl

from simulator import truth
from simulator.changes import NO_POD
from simulator.distributions import MEMORY, POWER, SM_ACTIVITY, TENSOR_ACTIVITY, UTILIZATION
from simulator.spec import FleetSpec
from simulator.step import build, step


def test_states_cover_what_pods_held_and_nothing_else(
    spec: FleetSpec, collect: Callable[..., dict[str, pl.DataFrame]]
) -> None:
    world = build(spec)
    frames = collect(world)
    held = (
        frames["pod_allocation"]
        .group_by("pod_uid", "gpu_uuid", "slice_uuid")
        .agg(pl.col("starts_at").first(), pl.col("ends_at").max().fill_null(world.now))
        .select((pl.col("ends_at") - pl.col("starts_at")).sum())
        .item()
    )
    work = truth.work_intervals(world)
    assert work.select((pl.col("ends_at") - pl.col("starts_at")).sum()).item() == held
    assert set(work["state"]) <= {"working", "idle_held", "idle", "stalled"}


def test_intervals_of_one_unit_follow_each_other_without_overlap(spec: FleetSpec) -> None:
    world = build(spec)
    step(world, timedelta(days=1))
    unit = ["gpu_uuid", "slice_uuid"]
    work = truth.work_intervals(world).sort(*unit, "starts_at")
    after = work.select(pl.col("starts_at").shift(-1).over(unit)).to_series()
    assert (work["ends_at"] > work["starts_at"]).all()
    assert (work["ends_at"] <= after).drop_nulls().all()


def test_what_the_agenda_says_and_what_the_units_hold_agree(spec: FleetSpec) -> None:
    world = build(replace(spec, faults=replace(spec.faults, rate_factor=20.0)))
    for _ in range(24):
        step(world, timedelta(hours=1))
        held = {unit for task in world.tasks if task.status == "running" for pod in task.pods
                for unit in world.pods[pod].units}  # fmt: skip
        assert held == {unit for unit, pod in enumerate(world.unit_pod.tolist()) if pod != NO_POD}
        for node in range(len(world.fabric.node_name)):
            free = [unit for unit in world.fabric.units_of_node(node) if unit not in held and world.is_open(unit)]
            assert world.free_units[node] == len(free)
    assert abs(world.used_gpus.sum() - sum(task.gpus for task in world.tasks if task.status == "running")) < 1e-6
    pending = [task.gpus for task in world.tasks if task.status == "pending"]
    assert abs(world.pending_gpus.sum() - sum(pending)) < 1e-6


def test_a_stalled_job_looks_busy_and_draws_little(
    spec: FleetSpec, collect: Callable[..., dict[str, pl.DataFrame]]
) -> None:
    spec = replace(spec, training=replace(spec.training, stall_share=1.0, stretch_hours=1.0))
    world = build(spec)
    samples = collect(world)["gpu_sample"].sort("ts")
    work = truth.work_intervals(world).filter(pl.col("slice_uuid").is_null()).sort("starts_at")
    stalled = (
        samples.join_asof(work, left_on="ts", right_on="starts_at", by="gpu_uuid")
        .filter((pl.col("state") == "stalled") & (pl.col("ts") > pl.col("starts_at") + timedelta(minutes=2)))
        .filter(pl.col("ts") < pl.col("ends_at"))
        .filter(pl.col("utilization").is_not_null())
    )
    assert stalled.height > 0
    assert stalled["utilization"].min() > 0.9  # type: ignore[operator]  # min of a full column is a number
    assert stalled["tensor_activity"].drop_nulls().max() == 0.0


def test_tables_of_shapes_rise_within_their_bounds() -> None:
    for table in (UTILIZATION, MEMORY, SM_ACTIVITY, TENSOR_ACTIVITY, POWER):
        assert len(table) == 21
        assert (table[1:] >= table[:-1]).all()
        assert table[0] > 0
        assert table[-1] <= 1
