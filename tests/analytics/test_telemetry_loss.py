from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.telemetry_loss import TelemetryPolicy, judge_telemetry, telemetry_signals
from fleet.verdict import Severity, Verdict

if TYPE_CHECKING:
    from tests.analytics.conftest import Engine

POLICY = TelemetryPolicy()
MINUTE = timedelta(minutes=1)


def scrapes(now: datetime, count: int = 60, missed: int = 0) -> list[datetime]:
    """Give the times of one GPU's samples, a minute apart up to half a minute ago, the last `missed` left out."""
    return [now - timedelta(seconds=30) - MINUTE * place for place in range(missed, count)]


def judged(engine: "Engine", now: datetime, policy: TelemetryPolicy = POLICY) -> list[Verdict]:
    return judge_telemetry(engine.run(telemetry_signals(engine.tables, now, policy)), policy, now)


def rules(verdicts: list[Verdict]) -> list[tuple[str, str]]:
    return [(verdict.rule, verdict.subject) for verdict in verdicts]


def fleet(engine: "Engine", now: datetime, nodes: int = 3, **missed: int) -> None:
    """Give nodes of 8 GPUs that all speak; `missed` names scrapes that a GPU ("g3") or a node ("n1") went without."""
    for gpu in range(nodes * 8):
        node = f"n{gpu // 8}"
        engine.add_gpu(gpu, node)
        engine.add_samples(gpu, scrapes(now, missed=missed.get(f"g{gpu}", missed.get(node, 0))), power_w=300.0)


def test_a_fleet_that_speaks_gives_no_finding(engine: "Engine", now: datetime) -> None:
    fleet(engine, now)
    assert judged(engine, now) == []


def test_a_gpu_that_two_scrapes_of_its_node_came_without_is_lost(engine: "Engine", now: datetime) -> None:
    fleet(engine, now, g3=2)
    (verdict,) = judged(engine, now)
    assert (verdict.subject, verdict.rule, verdict.state) == ("GPU-3", "gpu_lost", "failed")
    assert verdict.action == "reboot_node"
    assert verdict.evidence["scrapes_missed"] == 2


def test_one_missed_scrape_is_a_blip(engine: "Engine", now: datetime) -> None:
    fleet(engine, now, g3=1)
    assert judged(engine, now) == []


@pytest.mark.parametrize("interval_s", [5, 15, 60, 300])
def test_a_lost_gpu_is_found_within_two_scrapes_whatever_the_cadence(
    engine: "Engine", now: datetime, interval_s: int
) -> None:
    for gpu in range(8):
        engine.add_gpu(gpu, first_seen_at=now - timedelta(seconds=interval_s * 9))
        # GPUs of a node are read one after the other, so their times differ within a scrape.
        jitter = timedelta(seconds=interval_s * 0.04 * gpu)
        missed = 2 if gpu == 5 else 0
        engine.add_samples(
            gpu, [now - jitter - timedelta(seconds=interval_s * place) for place in range(missed, 9)], power_w=300.0
        )
    assert rules(judged(engine, now)) == [("gpu_lost", "GPU-5")]


def test_a_silent_exporter_is_one_finding_and_not_eight_dead_gpus(engine: "Engine", now: datetime) -> None:
    fleet(engine, now, n1=5)
    verdicts = judged(engine, now)
    calls = [verdict for verdict in verdicts if verdict.severity is not Severity.UNKNOWN]
    assert rules(calls) == [("exporter_lost", "n1")]
    assert {verdict.state for verdict in verdicts} == {"unknown"}
    assert sorted(verdict.subject for verdict in verdicts if verdict.rule == "exporter_silent") == [
        f"GPU-{gpu}" for gpu in sorted(range(8, 16), key=str)
    ]


def test_a_whole_cluster_that_fell_silent_is_one_finding(engine: "Engine", now: datetime) -> None:
    fleet(engine, now, n0=20, n1=20, n2=20)
    calls = [verdict for verdict in judged(engine, now) if verdict.severity is not Severity.UNKNOWN]
    assert rules(calls) == [("source_lost", "c1")]


def test_silence_after_a_boot_is_no_finding_yet_and_never_healthy(engine: "Engine", now: datetime) -> None:
    fleet(engine, now, n1=5)
    engine.add("event", ts=now - 4 * MINUTE, cluster="c1", node="n1", kind="boot", source="t")
    verdicts = judged(engine, now)
    assert {verdict.rule for verdict in verdicts} == {"booting"}
    assert {verdict.severity for verdict in verdicts} == {Severity.UNKNOWN}


def test_too_few_samples_are_unknown_and_never_healthy(engine: "Engine", now: datetime) -> None:
    fleet(engine, now, nodes=1)
    engine.add_gpu(8, "n0", first_seen_at=now - timedelta(days=3))
    engine.add_samples(8, [now - timedelta(seconds=30), now - 20 * MINUTE, now - 40 * MINUTE], power_w=300.0)
    (verdict,) = judged(engine, now)
    assert (verdict.rule, verdict.state, verdict.subject) == ("low_coverage", "unknown", "GPU-8")
    assert verdict.coverage == pytest.approx(3 / 60, abs=0.01)


def test_a_gpu_that_just_came_is_not_blamed_for_the_hour_before_it(engine: "Engine", now: datetime) -> None:
    fleet(engine, now, nodes=1)
    engine.add_gpu(8, "n0", first_seen_at=now - 5 * MINUTE)
    engine.add_samples(8, scrapes(now, count=5), power_w=300.0)
    assert judged(engine, now) == []


def test_a_gpu_without_any_sample_is_unknown(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    (verdict,) = judged(engine, now)
    assert (verdict.rule, verdict.state) == ("no_telemetry", "unknown")


def test_a_gpu_lost_for_days_stays_lost_by_its_hours(engine: "Engine", now: datetime) -> None:
    fleet(engine, now, nodes=1)
    engine.add_gpu(8, "n0")
    engine.add("gpu_hour", gpu=8, hour_at=now - timedelta(days=2), sample_count=60)
    assert rules(judged(engine, now)) == [("gpu_lost", "GPU-8")]


def test_a_gpu_whose_power_is_told_no_more_while_its_mates_tell_theirs_has_lost_a_series(
    engine: "Engine", now: datetime
) -> None:
    for gpu in range(4):
        engine.add_gpu(gpu)
        power = [None if gpu == 2 and place < 3 else 300.0 for place in range(60)]
        engine.add_samples(gpu, scrapes(now), power_w=power, temperature_c=60.0)
    (verdict,) = judged(engine, now)
    assert (verdict.rule, verdict.subject, verdict.evidence["lost"]) == ("series_lost", "GPU-2", ["power_w"])


def test_a_series_that_everybody_lost_is_nobodys_fault(engine: "Engine", now: datetime) -> None:
    for gpu in range(4):
        engine.add_gpu(gpu)
        power = [None if place < 3 else 300.0 for place in range(60)]
        engine.add_samples(gpu, scrapes(now), power_w=power, temperature_c=60.0)
    assert judged(engine, now) == []


@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.one_of(st.none(), st.integers(-4000, 700_000)),
            st.integers(0, 500),
            st.one_of(st.none(), st.floats()),
            st.one_of(st.none(), st.integers(-100, 100_000)),
        ),
        max_size=12,
    )
)
def test_no_signal_however_odd_raises_or_speaks_of_health(
    rows: list[tuple[int, int | None, int, float | None, int | None]],
) -> None:
    now = datetime.fromisoformat("2026-03-02T12:00:00+00:00")
    frame = pl.DataFrame(
        [
            {
                "uuid": f"GPU-{place}", "cluster": "c", "node": f"n{node}",
                "last_sample_at": None if ago is None else now - timedelta(seconds=ago), "sample_count": count,
                "interval_s": interval, "first_seen_at": None,
                "last_boot_at": None if boot is None else now - timedelta(seconds=boot), "measures_before": 7,
                "measures_lately": count % 8, "pci_address": None if count % 3 else "0000:01:00",
            }
            for place, (node, ago, count, interval, boot) in enumerate(rows)
        ],
        schema={
            "uuid": pl.String, "cluster": pl.String, "node": pl.String, "last_sample_at": pl.Datetime("us", "UTC"),
            "sample_count": pl.Int64, "interval_s": pl.Float64, "first_seen_at": pl.Datetime("us", "UTC"),
            "last_boot_at": pl.Datetime("us", "UTC"), "measures_before": pl.Int64, "measures_lately": pl.Int64,
            "pci_address": pl.String,
        },
    )  # fmt: skip
    for verdict in judge_telemetry(frame, POLICY, now):
        assert verdict.state in {"failed", "degraded", "unknown"}
