from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from fleet.errors import BadInput
from fleet.frames import conform
from fleet.tables import TABLES
from simulator import truth
from simulator.faults_spec import FAULT_KINDS, FaultSpec, Injection
from simulator.source import SimulatorSource
from simulator.spec import FleetSpec
from simulator.step import advance, build, step

Collect = Callable[..., dict[str, pl.DataFrame]]


def merged(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    key = list(TABLES[table].key_names("wire"))
    rest = [name for name in frame.columns if name not in key]
    last = [pl.col(name).drop_nulls().last() for name in rest]
    return frame.group_by(key, maintain_order=True).agg(last).sort(key)


def test_every_frame_conforms_to_its_table(spec: FleetSpec) -> None:
    batches = list(SimulatorSource(build(spec)).collect(None, spec.ends_at))
    assert {name for batch in batches for name in batch.frames} >= {
        "cluster", "node", "node_pool", "gpu", "slice", "gpu_sample", "slice_sample", "pod_allocation", "workspace",
        "workspace_member", "quota", "job", "demand_sample",
    }  # fmt: skip
    for batch in batches:
        for name, frame in batch.frames.items():
            assert_frame_equal(conform(frame, TABLES[name]), frame)


def test_samples_of_a_batch_are_sorted_by_gpu_and_time_and_none_stands_twice(spec: FleetSpec) -> None:
    batch = next(SimulatorSource(build(spec)).collect(None, spec.ends_at))
    keys = batch.frames["gpu_sample"].select("gpu_uuid", "ts")
    assert_frame_equal(keys, keys.sort("gpu_uuid", "ts"))
    assert keys.is_duplicated().sum() == 0


def test_same_spec_gives_same_rows(spec: FleetSpec, collect: Collect) -> None:
    spec = replace(spec, faults=FaultSpec(rate_factor=10.0))
    first, second = (collect(build(spec), 0, 12) for _ in range(2))
    assert first.keys() == second.keys()
    for name, frame in first.items():
        assert_frame_equal(frame, second[name])


def test_another_seed_gives_other_rows(spec: FleetSpec, collect: Collect) -> None:
    first, second = (collect(build(replace(spec, seed=seed)), 0, 2) for seed in (1, 2))
    assert not first["gpu_sample"].equals(second["gpu_sample"])


@pytest.mark.parametrize(
    "cuts",
    [(0, 12), (0, 0.01, 0.5, 1, 11.9999, 12), (0, 7.2169, 7.2172, 12)],
    ids=["whole", "uneven", "within a tick"],
)
def test_rows_do_not_depend_on_how_time_is_cut(spec: FleetSpec, collect: Collect, cuts: tuple[float, ...]) -> None:
    every_kind = tuple(Injection(kind, 0.4 * place, 2 * place, 5.0) for place, kind in enumerate(FAULT_KINDS))
    spec = replace(spec, faults=FaultSpec(injections=every_kind))
    whole = collect(build(spec), 0, 12)
    world = build(spec)
    pieces = [collect(world, since, until) for since, until in pairwise(cuts)]
    for name, frame in whole.items():
        pieces_of_it = pl.concat([piece[name] for piece in pieces if name in piece])
        assert_frame_equal(merged(pieces_of_it, name), merged(frame, name))


def test_the_past_reads_the_same_when_the_world_has_gone_on(spec: FleetSpec, collect: Collect) -> None:
    world = build(spec)
    before = collect(world, 2, 5)
    step(world, timedelta(hours=10))
    after = collect(world, 2, 5)
    for name in ("gpu_sample", "slice_sample", "pod_allocation", "job", "demand_sample"):
        assert_frame_equal(before[name], after[name])


def test_watermark_is_the_end_of_each_batch_and_nothing_lies_beyond_it(spec: FleetSpec) -> None:
    world = build(spec)
    until = spec.starts_at + timedelta(hours=3)
    batches = list(SimulatorSource(world).collect(spec.starts_at + timedelta(hours=1), until))
    assert batches[-1].read_until == until
    times = batches[-1].frames["gpu_sample"]["ts"]
    assert (times >= spec.starts_at + timedelta(hours=1)).all()
    assert (times < until).all()


def test_a_window_before_the_start_or_turned_around_gives_nothing(spec: FleetSpec) -> None:
    source = SimulatorSource(build(spec))
    hour = timedelta(hours=1)
    assert list(source.collect(spec.starts_at - 2 * hour, spec.starts_at - hour)) == []
    assert list(source.collect(spec.starts_at + 2 * hour, spec.starts_at + hour)) == []


def test_a_time_without_zone_is_refused(spec: FleetSpec) -> None:
    with pytest.raises(BadInput, match="no time zone"):
        advance(build(spec), spec.starts_at.replace(tzinfo=None))


def test_allocations_open_when_they_begin_and_close_later(spec: FleetSpec, collect: Collect) -> None:
    world = build(spec)
    early, late = collect(world, 0, 1)["pod_allocation"], collect(world, 1, 24)["pod_allocation"]
    open_early = early.filter(pl.col("ends_at").is_null())
    closed_late = late.filter(pl.col("ends_at").is_not_null())
    both = open_early.join(closed_late, on=["pod_uid", "gpu_uuid", "starts_at"])
    assert both.height > 0
    assert (both["ends_at_right"] >= spec.starts_at + timedelta(hours=1)).all()


def test_truth_does_not_depend_on_how_time_is_cut(spec: FleetSpec) -> None:
    one, many = build(spec), build(spec)
    step(one, timedelta(hours=9))
    for _ in range(9):
        step(many, timedelta(hours=1))
    assert_frame_equal(truth.work_intervals(one), truth.work_intervals(many))
