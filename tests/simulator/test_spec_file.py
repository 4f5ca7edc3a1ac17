import tomllib
from collections.abc import Callable
from datetime import UTC, datetime

import polars as pl
import pytest

from fleet.errors import BadConfig, BadInput
from simulator import truth
from simulator.presets import default_spec
from simulator.spec_file import spec_from
from simulator.step import build

ODD_FLEET = """
seed = 77
starts_at = 2025-12-31T23:30:00Z
days = 0.5
interval_s = 30

[[models]]
name = "Strange Board"
architecture = "Unheard"
memory_mib = 10000
power_limit_w = 120.0
idle_power_low_w = 7.0
idle_power_high_w = 8.0
sm_clock_mhz = 900
has_profiling = false

[[clusters]]
name = "lab"
[[clusters.pools]]
name = "only"
model = "Strange Board"
nodes = 3
gpus_per_node = 5
capacity_type = "owned"

[[workspaces]]
name = "solo"
owner = "one"
training = 1.0
batch = 1.0
[[workspaces.quotas]]
cluster = "lab"
gpus = 15

[faults]
rate_factor = 50.0

[telemetry]
lag_s = 0
"""


def test_a_fleet_nobody_tuned_for_can_be_drawn(collect: Callable[..., dict[str, pl.DataFrame]]) -> None:
    spec = spec_from(tomllib.loads(ODD_FLEET), "odd.toml")
    world = build(spec)
    frames = collect(world, 0, 12)
    samples = frames["gpu_sample"]
    assert samples["gpu_uuid"].n_unique() == 15
    steps = samples.sort("gpu_uuid", "ts").select(pl.col("ts").diff().over("gpu_uuid").dt.total_seconds()).to_series()
    assert steps.drop_nulls().mode().to_list() == [30]
    assert samples["sm_activity"].null_count() == samples.height
    assert frames["pod_allocation"]["gpu_uuid"].n_unique() == 15
    assert "slice_sample" not in frames
    assert truth.work_intervals(world).height > 0


def test_a_preset_is_changed_only_where_the_file_says_so() -> None:
    spec = spec_from(
        {"preset": "default", "gpus": 96, "days": 3, "seed": 9, "faults": {"rates": {"xid_79": 2}}}, "fleet.toml"
    )
    assert (spec.gpus, spec.days, spec.seed) == (96, 3.0, 9)
    assert spec.faults.rates.xid_79 == 2.0
    assert spec.faults.rates.xid_48 == default_spec().faults.rates.xid_48
    assert spec.workspaces == default_spec(96).workspaces


def test_a_time_may_be_a_text() -> None:
    spec = spec_from({"preset": "default", "gpus": 48, "starts_at": "2026-01-01T02:00:00+02:00"}, "fleet.toml")
    assert spec.starts_at == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"colour": "red"}, "colour", "is unknown; accepted here: clusters, workspaces"),
        ({"faults": {"rates": {"xid_7": 1.0}}}, "faults.rates.xid_7", "xid_79"),
        ({"interval_s": 0}, "interval_s", "between 1"),
        ({"interval_s": 1.5}, "interval_s", "whole number"),
        ({"interval_s": True}, "interval_s", "whole number"),
        ({"days": "long"}, "days", "a number"),
        ({"days": float("nan")}, "days", "above zero"),
        ({"starts_at": "soon"}, "starts_at", "like 2026-03-02T00:00:00Z"),
        ({"starts_at": datetime(2026, 1, 1)}, "starts_at", "with a zone"),  # noqa: DTZ001 - the bad value itself
        ({"preset": "huge"}, "preset", "default, serving_heavy, notebook_heavy"),
        ({"gpus": 50}, "gpus", "multiple of 8"),
        ({"telemetry": {"node_loss": 2.0}}, "telemetry.node_loss", "between 0"),
        ({"telemetry": []}, "telemetry", "not a table"),
        ({"workspaces": "all"}, "workspaces", "not a list"),
        ({"clusters": []}, "clusters", "at least one"),
        ({"workspaces": [{"name": "a"}]}, "workspaces[0].owner", "missing"),
        (
            {"workspaces": [{"name": "a", "owner": "b", "quotas": [{"cluster": "mars", "gpus": 1.0}]}]},
            "workspaces.a.quotas.cluster",
            "'mars' is not one of east, west",
        ),
        (
            {"workspaces": [{"name": "a", "owner": "b", "demand": "wild", "quotas": [{"cluster": "east", "gpus": 1}]}]},
            "workspaces[0].demand",
            "persistent, step, burst",
        ),
        ({"faults": {"injections": [{"kind": "fire", "after_hours": 1}]}}, "faults.injections[0].kind", "xid_79"),
        (
            {"faults": {"injections": [{"kind": "xid_79", "after_hours": 1, "gpu": 4800}]}},
            "faults.injections.gpu",
            "between 0 and 47",
        ),
        (
            {"clusters": [{"name": "c", "pools": [{"name": "p", "model": "Abacus", "nodes": 1}]}]},
            "clusters.c.pools.p.model",
            "Tesla T4",
        ),
        ({"training": {"gpus": [1, 2], "gpus_weights": [1.0]}}, "training.gpus", "as many weights"),
    ],
)
def test_a_bad_setting_is_refused_by_file_name_and_accepted_values(
    change: dict[str, object], field: str, words: str
) -> None:
    with pytest.raises(BadConfig) as caught:
        spec_from({"preset": "default", "gpus": 48} | change, "fleet.toml")
    assert caught.value.field == field
    assert caught.value.place == "fleet.toml"
    assert "fleet.toml" in str(caught.value)
    assert words in str(caught.value)


def test_a_fleet_too_small_for_the_preset_is_refused() -> None:
    with pytest.raises(BadInput, match="gpus"):
        default_spec(8)
