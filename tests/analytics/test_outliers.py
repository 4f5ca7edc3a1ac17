import math
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.outlier_parts import gangs, outlier_parts
from analytics.outliers import SIGNALS, OutlierPolicy, judge_outliers

if TYPE_CHECKING:
    from tests.analytics.conftest import Engine

POLICY = OutlierPolicy()
NOW = datetime.fromisoformat("2026-03-02T12:00:00+00:00")
PARTS = {
    "uuid": pl.String, "cluster": pl.String, "node": pl.String, "model": pl.String, "part": pl.Int64,
    "phase": pl.String, "job": pl.String, "workload": pl.String,
    **{signal.name: pl.Float64 for signal in SIGNALS},
}  # fmt: skip


Odd = dict[str, dict[str, float]]


def parts(gpus: int, odd: Odd | None = None, *, job: str | None = "j", phase: str | None = "work") -> pl.DataFrame:
    """Give a fleet at work that differs by a little; `odd` overrides measures of one GPU ("g5")."""
    rows = []
    for gpu in range(gpus):
        wobble = math.sin(gpu * 12.9898) * 0.5
        values = {
            "power_w": 600 + 8 * wobble, "sm_clock_mhz": 1755 + 6 * wobble, "sm_activity": 0.9 + 0.01 * wobble,
            "temperature_c": 62 + 3 * wobble, "corrected_per_hour": 0.0, "replays_per_hour": 0.0,
        }  # fmt: skip
        values |= (odd or {}).get(f"g{gpu}", {})
        rows += [
            {
                "uuid": f"GPU-{gpu}", "cluster": "c", "node": f"n{gpu // 8}", "model": "H100", "part": part,
                "phase": phase, "job": job, "workload": job, **values,
            }
            for part in range(POLICY.parts)
        ]  # fmt: skip
    return pl.DataFrame(rows, schema=PARTS)


def found(frame: pl.DataFrame) -> list[tuple[str, str]]:
    return [(verdict.subject, verdict.rule) for verdict in judge_outliers(frame, POLICY, NOW)]


def test_a_fleet_alike_has_no_outlier() -> None:
    assert found(parts(64)) == []


@pytest.mark.parametrize(
    ("odd", "rule"),
    [
        ({"sm_clock_mhz": 1200.0, "power_w": 420.0}, "straggler"),
        ({"power_w": 420.0}, "straggler"),
        ({"temperature_c": 88.0}, "outlier_temperature_c"),
        ({"corrected_per_hour": 17_700.0 * 3600}, "outlier_corrected_per_hour"),
        ({"replays_per_hour": 5_000.0}, "outlier_replays_per_hour"),
    ],
)
def test_one_gpu_that_is_off_in_the_bad_direction_is_found_and_no_other(odd: dict[str, float], rule: str) -> None:
    assert found(parts(64, {"g5": odd})) == [("GPU-5", rule)]


@pytest.mark.parametrize(
    "odd", [{"sm_clock_mhz": 1980.0}, {"temperature_c": 30.0}, {"power_w": 690.0}], ids=["fast", "cool", "hungry"]
)
def test_a_gpu_that_is_better_than_its_peers_is_not_accused(odd: dict[str, float]) -> None:
    assert found(parts(64, {"g5": odd})) == []


def test_a_storm_of_corrected_errors_on_one_of_1152_gpus_is_found_on_that_one_only() -> None:
    assert found(parts(1152, {"g700": {"corrected_per_hour": 17_700.0 * 3600}}, job=None)) == [
        ("GPU-700", "outlier_corrected_per_hour")
    ]


def test_low_power_without_a_gang_is_somebody_elses_work() -> None:
    assert found(parts(64, {"g5": {"power_w": 200.0, "sm_clock_mhz": 1200.0, "sm_activity": 0.35}}, job=None)) == []


def test_a_gpu_at_rest_is_not_a_straggler() -> None:
    assert found(parts(64, {"g5": {"power_w": 90.0, "sm_clock_mhz": 345.0}}, phase="rest")) == []


def test_too_few_peers_say_nothing() -> None:
    assert found(parts(3, {"g1": {"sm_clock_mhz": 900.0, "temperature_c": 95.0}})) == []


def test_a_blip_in_one_part_of_the_window_is_silent() -> None:
    frame = parts(64).with_columns(
        sm_clock_mhz=pl.when((pl.col("uuid") == "GPU-5") & (pl.col("part") == 2)).then(900.0).otherwise("sm_clock_mhz")
    )
    assert found(frame) == []


def test_half_a_job_slowed_alike_is_not_called_a_straggler() -> None:
    odd = {f"g{gpu}": {"power_w": 420.0, "sm_clock_mhz": 1200.0} for gpu in range(32)}
    assert found(parts(64, odd)) == []


def test_evidence_tells_value_peers_and_deviations() -> None:
    (verdict,) = judge_outliers(parts(64, {"g5": {"temperature_c": 88.0}}), POLICY, NOW)
    assert verdict.evidence["value"] == 88.0
    assert verdict.evidence["circle"] == "job"
    assert verdict.evidence["peers"] == 63
    assert verdict.evidence["bad_parts"] == 6
    assert verdict.action == "inspect"
    assert verdict.confidence is not None
    assert 0.5 <= verdict.confidence <= 0.95


@given(
    values=st.lists(
        st.tuples(*(st.one_of(st.none(), st.floats(), st.sampled_from([0.0, -1.0, 1e308])) for _ in SIGNALS)),
        min_size=1,
        max_size=10,
    ),
    phase=st.sampled_from(["work", "rest", None]),
)
def test_no_measure_however_odd_raises(values: list[tuple[float | None, ...]], phase: str | None) -> None:
    rows = [
        {
            "uuid": f"GPU-{gpu}", "cluster": "c", "node": "n", "model": None if gpu == 3 else "m", "part": part,
            "phase": phase, "job": "j", "workload": "j",
            **dict(zip((signal.name for signal in SIGNALS), row, strict=True)),
        }
        for gpu, row in enumerate(values)
        for part in range(POLICY.parts)
    ]  # fmt: skip
    verdicts = judge_outliers(pl.DataFrame(rows, schema=PARTS), POLICY, NOW)
    assert {verdict.state for verdict in verdicts} <= {"degraded"}


def minutes(count: int) -> list[datetime]:
    return [NOW - timedelta(minutes=place + 1) for place in range(count)][::-1]


def test_the_store_gives_parts_with_phase_job_and_rates(engine: "Engine") -> None:
    engine.add_gpu(1, model="H100")
    engine.add_pod(1, NOW - timedelta(hours=3))
    engine.add_samples(
        1, minutes(60), power_w=600.0, sm_clock_mhz=1755, sm_activity=0.9, temperature_c=60.0,
        ecc_corrected_count=list(range(0, 600, 10)), pcie_replay_count=[9] * 30 + [0] * 30,
    )  # fmt: skip
    rows = engine.run(outlier_parts(engine.tables, NOW, POLICY)).sort("part")
    assert rows.get_column("part").to_list() == [0, 1, 2, 3, 4, 5]
    assert set(rows.get_column("phase")) == {"work"}
    assert set(rows.get_column("job")) == {"c1/Job/team/train"}
    assert rows.get_column("corrected_per_hour").to_list() == [540.0] * 6
    assert set(rows.get_column("replays_per_hour")) == {0.0}


def test_a_counter_that_went_back_within_a_part_gives_no_rate(engine: "Engine") -> None:
    engine.add_gpu(1)
    engine.add_samples(1, minutes(60), utilization=0.0, ecc_corrected_count=[5_000] * 35 + [0] * 25)
    rows = engine.run(outlier_parts(engine.tables, NOW, POLICY)).sort("part")
    assert rows.get_column("corrected_per_hour").to_list() == [0.0, 0.0, 0.0, None, 0.0, 0.0]
    assert set(rows.get_column("phase")) == {"rest"}


def test_replicas_of_a_service_and_gpus_that_two_jobs_share_are_no_gang(engine: "Engine") -> None:
    for gpu in range(3):
        engine.add_gpu(gpu)
    engine.add_pod(0, NOW - timedelta(hours=1))
    engine.add_pod(1, NOW - timedelta(hours=1), name="chat", workload_kind="Deployment")
    engine.add_pod(2, NOW - timedelta(hours=1), name="a")
    engine.add_pod(2, NOW - timedelta(hours=1), name="b")
    assert engine.run(gangs(engine.tables, NOW)).rows() == [("GPU-0", "c1/Job/team/train")]
