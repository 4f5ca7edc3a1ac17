from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from simulator import truth
from simulator.faults_spec import FaultSpec
from simulator.presets import PRESETS, default_spec
from simulator.spec import FleetSpec
from simulator.step import build
from simulator.work import Kind, State, phases

Collect = Callable[..., dict[str, pl.DataFrame]]


@pytest.fixture
def day(spec: FleetSpec, collect: Collect) -> dict[str, pl.DataFrame]:
    return collect(build(replace(spec, faults=FaultSpec(rate_factor=10.0))))


def test_measurements_stay_within_what_a_board_can_do(day: dict[str, pl.DataFrame]) -> None:
    samples = day["gpu_sample"].join(day["gpu"].unique("gpu_uuid"), on="gpu_uuid")
    assert (samples["power_w"] >= 0).all()
    assert (samples["power_w"] <= 1.04 * samples["power_limit_w"]).all()
    assert (samples["memory_used_mib"] + samples["memory_reserved_mib"] <= samples["memory_mib"]).all()
    assert samples["temperature_c"].is_between(15, 95).all()
    for name in ("utilization", "memory_utilization", "gr_activity", "sm_activity", "tensor_activity"):
        assert samples[name].drop_nulls().is_between(0, 1).all(), name


def test_idle_a100_boards_draw_what_idle_a100_boards_draw(day: dict[str, pl.DataFrame]) -> None:
    a100 = day["gpu"].filter(pl.col("model").str.contains("A100"))["gpu_uuid"].unique()
    idle = day["gpu_sample"].filter(
        pl.col("gpu_uuid").is_in(a100.implode()) & (pl.col("memory_used_mib") == 0) & (pl.col("utilization") == 0)
    )
    assert idle.height > 0
    assert idle["power_w"].quantile(0.01) > 58  # type: ignore[operator]  # quantile of a full column is no None
    assert idle["power_w"].quantile(0.99) < 77  # type: ignore[operator]  # as above


def test_energy_counters_never_fall_and_agree_with_power(spec: FleetSpec, collect: Collect) -> None:
    samples = collect(build(spec))["gpu_sample"].sort("gpu_uuid", "ts")
    steps = samples.select(pl.col("energy_j").diff().over("gpu_uuid")).to_series().drop_nulls()
    assert (steps >= 0).all()
    used = samples.group_by("gpu_uuid").agg(
        counted=pl.col("energy_j").last() - pl.col("energy_j").first(),
        summed=pl.col("power_w").mean() * (pl.col("ts").last() - pl.col("ts").first()).dt.total_seconds(),
    )
    assert used["counted"].sum() == pytest.approx(used["summed"].sum(), rel=0.05)


def test_mig_boards_have_slices_and_no_utilization(day: dict[str, pl.DataFrame]) -> None:
    cut = day["gpu"].filter(pl.col("mig_enabled"))["gpu_uuid"].unique()
    samples = day["gpu_sample"].filter(pl.col("gpu_uuid").is_in(cut.implode()))
    assert samples["utilization"].null_count() == samples.height
    assert samples["gr_activity"].null_count() < samples.height / 100
    assert day["slice"]["slice_uuid"].n_unique() == 7 * len(cut)
    assert day["slice_sample"]["gr_activity"].max() > 0  # type: ignore[operator]  # max of a full column is a number


def test_models_without_profiling_leave_activity_null_but_not_utilization(day: dict[str, pl.DataFrame]) -> None:
    t4 = day["gpu"].filter(pl.col("model") == "Tesla T4")["gpu_uuid"].unique()
    samples = day["gpu_sample"].filter(pl.col("gpu_uuid").is_in(t4.implode()))
    assert samples.height > 0
    assert samples["sm_activity"].null_count() == samples.height
    assert samples["rows_remapped_corrected_count"].null_count() == samples.height
    assert samples["retired_page_count"].null_count() == 0
    assert samples["utilization"].null_count() < samples.height / 100


def test_a_whole_gpu_is_never_given_twice_and_a_slice_neither(day: dict[str, pl.DataFrame]) -> None:
    held = (
        day["pod_allocation"]
        .group_by("pod_uid", "gpu_uuid", "slice_uuid")
        .agg(pl.col("starts_at").first(), pl.col("ends_at").max())
    )
    unit = ["gpu_uuid", "slice_uuid"]
    ordered = held.sort(*unit, "starts_at").with_columns(
        after=pl.col("starts_at").shift(-1).over(unit), end=pl.col("ends_at")
    )
    followed = ordered.filter(pl.col("after").is_not_null())
    assert followed.height > 0
    assert followed["end"].null_count() == 0
    assert (followed["end"] <= followed["after"]).all()
    whole = held.filter(pl.col("slice_uuid").is_null())["gpu_uuid"].unique()
    parts = held.filter(pl.col("slice_uuid").is_not_null())["gpu_uuid"].unique()
    assert not set(whole) & set(parts)


def test_quotas_and_capacity_are_respected(spec: FleetSpec, day: dict[str, pl.DataFrame]) -> None:
    demand = day["demand_sample"]
    assert (demand["running_gpus"] <= demand["capacity_gpus"] + 1e-6).all()
    total = demand.group_by("cluster", "ts").agg(pl.col("running_gpus").sum())
    for cluster in spec.clusters:
        assert total.filter(pl.col("cluster") == cluster.name)["running_gpus"].max() <= cluster.gpus  # type: ignore[operator]  # max of a full column is a number


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_can_be_drawn(preset: str, collect: Collect) -> None:
    frames = collect(build(PRESETS[preset](gpus=48, days=1.0)), 0, 2)
    assert frames["gpu_sample"]["gpu_uuid"].n_unique() == 48


def test_the_default_fleet_shows_as_many_zeros_as_real_ones(collect: Collect) -> None:
    """The utilisation curves of Acme's clusters begin with 26 to 34 % of zeros; the bounds are wider on purpose."""
    spec = replace(default_spec(256), interval_s=600)
    samples = collect(build(spec), 12, 72)["gpu_sample"]
    zero_share = (samples["utilization"] == 0).mean()
    assert isinstance(zero_share, float)
    assert 0.20 < zero_share < 0.45


def test_services_hold_memory_through_idle_spells_for_a_quarter_of_their_hours(spec: FleetSpec) -> None:
    idle_s, all_s = 0, 0
    for index in range(40):
        rng = np.random.default_rng(index)
        for _, phase in zip(range(80), phases(spec, Kind.SERVING, 0, 0, rng), strict=False):
            all_s += phase.seconds
            if phase.state is State.IDLE_HELD:
                assert phase.seconds >= 30 * 60
                assert phase.memory > 0
                idle_s += phase.seconds
    assert 0.18 < idle_s / all_s < 0.32


def test_working_gpus_show_zero_samples_and_idle_ones_rare_blips(spec: FleetSpec, collect: Collect) -> None:
    spec = replace(spec, telemetry=replace(spec.telemetry, lag_s=0, blip_share=0.01))
    world = build(spec)
    samples = collect(world)["gpu_sample"]
    work = truth.work_intervals(world).filter(pl.col("slice_uuid").is_null())
    joined = (
        samples.sort("ts")
        .join_asof(work.sort("starts_at"), left_on="ts", right_on="starts_at", by="gpu_uuid")
        .filter(pl.col("ts") < pl.col("ends_at"))
    )
    working = joined.filter(pl.col("state") == "working")["utilization"]
    held = joined.filter(pl.col("state") == "idle_held")
    assert 0.005 < (working == 0).mean() < 0.25  # type: ignore[operator]  # mean of a full column is a number
    assert 0.002 < (held["utilization"] > 0).mean() < 0.05  # type: ignore[operator]  # as above
    assert (held["memory_used_mib"] > 0).all()
