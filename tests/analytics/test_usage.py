"""Use: whose sample it was, how busy, and what a rightsizing and a pattern make of it."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from analytics.idle import IdlePolicy
from analytics.rightsizing import Recommendation, held_use, rightsize
from analytics.usage import live, usage_hours, usage_summary
from analytics.use_pattern import next_uses, use_pattern
from fleet.errors import BadInput

if TYPE_CHECKING:
    from tests.analytics.conftest import Engine

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
H100 = "NVIDIA H100 80GB HBM3"


def minutes(now: datetime, count: int) -> list[datetime]:
    return [now - MINUTE * back for back in range(count, 0, -1)]


def hours(engine: "Engine", now: datetime, by: str = "workspace", back: int = 2) -> pl.DataFrame:
    return engine.run(usage_hours(engine.tables, now - back * HOUR, now, by)).sort("hour_at", by)


def test_a_sample_counts_for_who_held_the_gpu_at_that_second(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    engine.add_pod(1, now - 2 * HOUR, name="a", workspace="a", ends_at=now - 90 * MINUTE)
    engine.add_pod(1, now - 90 * MINUTE, name="b", workspace="b")
    engine.add_samples(1, minutes(now, 120), utilization=[0.2] * 30 + [0.8] * 90)
    rows = hours(engine, now).to_dicts()
    assert [(row["workspace"], row["hour_at"], row["gpu_hours"], row["known_count"]) for row in rows] == [
        ("a", now - 2 * HOUR, 0.5, 30),
        ("b", now - 2 * HOUR, 0.5, 30),
        ("b", now - HOUR, 1.0, 60),
    ]
    assert [row["activity_p50"] for row in rows] == pytest.approx([0.2, 0.8, 0.8])


def test_medians_and_95ths_are_those_of_all_samples_of_the_group(engine: "Engine", now: datetime) -> None:
    for gpu, value in ((1, 0.0), (2, 0.5), (3, 1.0)):
        engine.add_gpu(gpu)
        engine.add_pod(gpu, now - DAY, name=f"p{gpu}")
        engine.add_samples(gpu, minutes(now, 60), sm_activity=value)
    (row,) = hours(engine, now, back=1).to_dicts()
    assert (row["activity_p50"], row["activity_p95"], row["known_count"]) == (0.5, 1.0, 180)
    assert (row["activity_mean"], row["active_share"], row["gpu_hours"]) == pytest.approx((0.5, 2 / 3, 3.0))


def test_without_samples_it_is_held_and_unknown_and_not_zero(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    engine.add_pod(1, now - DAY)
    (row,) = hours(engine, now, back=1).to_dicts()
    assert (row["gpu_hours"], row["activity_p50"], row["activity_mean"], row["active_share"]) == (1.0, None, None, None)
    (whole,) = usage_summary(hours(engine, now)).to_dicts()
    assert (whole["gpu_hours"], whole["activity_mean"]) == (2.0, None)


def test_slices_are_told_by_their_own_samples_and_never_by_the_parents_utilization(
    engine: "Engine", now: datetime
) -> None:
    engine.add_gpu(1, mig_enabled=True)
    engine.add("slice", slice=11, uuid="MIG-11", gpu=1)
    engine.add_pod(1, now - DAY, name="part", slice=11, fraction=1 / 7, workspace="s")
    engine.add_pod(1, now - DAY, name="whole", workspace="w")
    engine.add_samples(1, minutes(now, 60), utilization=0.0)
    engine.add_samples(11, minutes(now, 60), "slice_sample", gr_activity=0.6)
    rows = {row["workspace"]: row for row in hours(engine, now, back=1).iter_rows(named=True)}
    assert rows["s"]["activity_p50"] == pytest.approx(0.6)
    assert rows["w"]["activity_p50"] is None


@pytest.mark.parametrize("by", ["workspace", "namespace", "workload", "owner", "cluster", "node", "model"])
def test_it_can_be_told_by_each_dimension_and_hours_held_are_the_same(engine: "Engine", now: datetime, by: str) -> None:
    engine.add_gpu(1, model="H100")
    engine.add_pod(1, now - DAY, fraction=0.5)
    engine.add_pod(1, now - DAY, name="bare", workload_kind=None, workload=None, workspace=None, fraction=0.5)
    engine.add_samples(1, minutes(now, 60), utilization=0.5)
    assert hours(engine, now, by, back=1)["gpu_hours"].sum() == pytest.approx(1.0)


def test_by_something_else_is_refused(engine: "Engine", now: datetime) -> None:
    with pytest.raises(BadInput, match="colour"):
        hours(engine, now, "colour")


def test_live_shows_the_newest_sample_and_what_is_stale_as_unknown(engine: "Engine", now: datetime) -> None:
    for gpu in (1, 2):
        engine.add_gpu(gpu)
    engine.add_pod(1, now - HOUR)
    engine.add_samples(1, [now - 2 * MINUTE, now - MINUTE], utilization=[0.9, 0.4], power_w=[300.0, 200.0])
    engine.add_samples(2, [now - HOUR], utilization=0.9)
    rows = {row["device"]: row for row in engine.run(live(engine.tables, now)).iter_rows(named=True)}
    assert (rows["GPU-1"]["activity"], rows["GPU-1"]["power_w"]) == pytest.approx((0.4, 200.0))
    assert (rows["GPU-1"]["workspace"], rows["GPU-1"]["workload"]) == ("research", "Job/team/train")
    assert (rows["GPU-2"]["activity"], rows["GPU-2"]["pod_count"]) == (None, None)


def used_by(engine: "Engine", now: datetime, gpu: int, name: str = "train", kind: str = "Job", **samples: Any) -> None:
    engine.add_gpu(gpu, model=H100, memory_mib=81559)
    engine.add_pod(gpu, now - 2 * DAY, name=name, workload_kind=kind, owner="ada")
    moments = [now - timedelta(minutes=10 * back) for back in range(288, 0, -1)]
    engine.add_samples(gpu, moments, **samples)


def advised(engine: "Engine", now: datetime, rate: Decimal | None = Decimal(7)) -> list[Recommendation]:
    frame = engine.run(held_use(engine.tables, now - 7 * DAY, now))
    rates = {} if rate is None else {f"GPU-{gpu}": rate for gpu in range(9)}
    return rightsize(frame, IdlePolicy(), 600.0, rates)


def test_some_gpus_unused_is_optimize_all_is_remove_and_a_part_is_share(engine: "Engine", now: datetime) -> None:
    used_by(engine, now, 1, sm_activity=0.9, memory_used_mib=70_000)
    used_by(engine, now, 2, sm_activity=0.0, memory_used_mib=0)
    used_by(engine, now, 3, name="dead", sm_activity=0.0, memory_used_mib=0)
    used_by(engine, now, 4, name="small", kind="Notebook", sm_activity=0.06, memory_used_mib=6000)
    used_by(engine, now, 5, name="busy", sm_activity=0.9, memory_used_mib=70_000)
    found = {each.workload: each for each in advised(engine, now)}
    assert set(found) == {"Job/team/train", "Job/team/dead", "Notebook/team/small"}
    assert [(each.kind, each.gpus_wanted, each.device) for each in found.values()] == [
        ("Remove", 0.0, None),
        ("Optimize", 1.0, None),
        ("Share", pytest.approx(1 / 7), "1g.10gb"),
    ]
    assert [each.saving_usd_per_hour for each in found.values()] == [Decimal(7), Decimal(7), Decimal(6)]
    assert found["Notebook/team/small"].risk == "low"
    assert found["Job/team/train"].owner == "ada"


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param({"sm_activity": None}, id="nothing-measured"),
        pytest.param({"sm_activity": [0.0] * 200 + [None] * 88}, id="too-little-measured"),
        pytest.param({"sm_activity": 0.06, "memory_used_mib": None}, id="memory-not-measured"),
        pytest.param({"utilization": 0.3, "memory_used_mib": 6000}, id="no-sm-activity"),
    ],
)
def test_what_is_not_known_is_recommended_nothing(engine: "Engine", now: datetime, samples: dict[str, Any]) -> None:
    used_by(engine, now, 1, kind="Notebook", **samples)
    assert advised(engine, now) == []


def test_a_gang_of_several_gpus_is_not_cut_and_a_young_one_not_judged(engine: "Engine", now: datetime) -> None:
    for gpu in (1, 2):
        used_by(engine, now, gpu, sm_activity=0.06, memory_used_mib=6000)
    engine.add_gpu(3, model=H100)
    engine.add_pod(3, now - 2 * HOUR, name="young")
    engine.add_samples(3, minutes(now, 120), sm_activity=0.0)
    assert advised(engine, now) == []


def test_a_saving_without_a_price_is_unpriced_and_not_zero(engine: "Engine", now: datetime) -> None:
    used_by(engine, now, 1, sm_activity=0.0, memory_used_mib=0)
    (only,) = advised(engine, now, rate=None)
    assert (only.kind, only.saving_usd_per_hour) == ("Remove", None)


def add_days(engine: "Engine", now: datetime, active_hours: set[int], days: int = 14, weekend: bool = False) -> None:  # noqa: FBT001, FBT002 - a test's own builder
    for back in range(1, days * 24):
        hour_at = now - back * HOUR
        works = hour_at.hour in active_hours and (weekend or hour_at.weekday() < 5)
        engine.add(
            "gpu_hour", gpu=1, hour_at=hour_at, sample_count=60, known_sample_count=60,
            active_sample_count=30 if works else 0,
        )  # fmt: skip


def test_the_next_use_is_the_next_hour_of_a_like_day_in_which_it_was_usually_used(
    engine: "Engine", now: datetime
) -> None:
    engine.add_gpu(1)
    engine.add_pod(1, now - 20 * DAY)
    add_days(engine, now, {9, 15})
    uses = next_uses(engine.run(use_pattern(engine.tables, now)), now)
    use = uses["c1", "Job/team/train"]
    assert (use.at, use.chance) == (now.replace(hour=15), 1.0)
    friday_evening = now.replace(day=6, hour=18)
    assert next_uses(engine.run(use_pattern(engine.tables, now)), friday_evening)["c1", "Job/team/train"].at == (
        now.replace(day=9, hour=9)
    )


@pytest.mark.parametrize(
    ("active", "days"),
    [pytest.param(set[int](), 14, id="never-used"), pytest.param({9}, 1, id="one-day-is-no-pattern")],
)
def test_without_a_pattern_nothing_is_expected(engine: "Engine", now: datetime, active: set[int], days: int) -> None:
    engine.add_gpu(1)
    engine.add_pod(1, now - 20 * DAY)
    add_days(engine, now, active, days)
    assert next_uses(engine.run(use_pattern(engine.tables, now)), now) == {}


def test_what_the_gpu_did_for_others_is_no_pattern_of_this_workload(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    engine.add_pod(1, now - 20 * DAY, name="before", ends_at=now - DAY)
    engine.add_pod(1, now - DAY, name="after")
    add_days(engine, now, set(range(24)), weekend=True)
    assert set(next_uses(engine.run(use_pattern(engine.tables, now)), now)) <= {("c1", "Job/team/after")}
