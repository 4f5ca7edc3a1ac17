"""The state of the house as Prometheus metrics."""

from collections import Counter
from datetime import UTC, datetime

import polars as pl

from analytics.telemetry import troubles_by_source
from api.exposition import Metric, Sample, expose, metric
from steward.compose import House
from steward.health_gauges import health_gauges
from steward.loop import LoopState
from steward.telemetry import judged_sources

_BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)


def metrics_of(house: House, state: LoopState | None) -> str:
    """Return the metrics of store, sources, loop and the latest verdicts as exposition text."""
    now = house.clock.now()
    described = house.store.describe()
    rows = described["rows"]
    metrics = [
        Metric(
            "steward_store_rows",
            "Rows by table.",
            "gauge",
            tuple(Sample(count, {"table": name}) for name, count in (rows.items() if isinstance(rows, dict) else ())),
        ),
        *_sources(house, now),
        _failures(house),
        _verdicts(house),
        *health_gauges(house),
    ]
    if state is not None:
        metrics.append(metric("steward_turns_total", "Turns that went well.", state.turns, "counter"))
        metrics.append(metric("steward_turn_failures_total", "Turns that failed.", state.failures, "counter"))
    return expose(metrics)


def _sources(house: House, now: datetime) -> list[Metric]:
    judged = judged_sources(house, now)
    gauges = (
        ("lag_s", "steward_source_lag_seconds", "Seconds since the moment up to which a source has been read."),
        ("coverage", "steward_source_coverage_ratio", "Samples of the last hour over those expected by its cadence."),
    )
    metrics = [
        Metric(name, meaning, "gauge", tuple(
            Sample(value, {"source": source}) for source, value in judged.select("source", column).iter_rows()
        ))
        for column, name, meaning in gauges
    ]  # fmt: skip
    engine = house.store.engine
    ever = engine.run(troubles_by_source(engine, _BEGINNING))
    totals = judged.select("source").join(ever, on="source", how="left").sort("source")
    counters = (
        ("failures", "steward_source_failures_total", "Times a source could not be read."),
        ("rejected_rows", "steward_source_rejects_total", "Rows of a source that could not be stored."),
    )
    # A source without a row of troubles had none: that is a count of 0, not an unknown.
    return metrics + [
        Metric(name, meaning, "counter", tuple(
            Sample(0 if value is None else int(value), {"source": source})
            for source, value in totals.select("source", column).iter_rows()
        ))
        for column, name, meaning in counters
    ]  # fmt: skip


def _failures(house: House) -> Metric:
    failures = house.store.read("source_failure").group_by("source", "kind").agg(pl.col("row_count").sum(), pl.len())
    samples = [
        Sample(row["len"], {"source": row["source"], "kind": row["kind"]})
        for row in failures.sort("source", "kind").to_dicts()
    ]
    return Metric("steward_source_troubles_total", "Failures and rejections recorded.", "counter", tuple(samples))


def _verdicts(house: House) -> Metric:
    table = house.store.engine.table("verdict")
    latest = house.store.engine.run(
        table.filter(table.made_at == table.made_at.max()).select("topic", "subject_kind", "state")
    )
    counts = Counter(latest.iter_rows())
    samples = [
        Sample(count, {"topic": topic, "subject": kind, "state": state})
        for (topic, kind, state), count in sorted(counts.items())
    ]
    return Metric(
        "steward_verdicts", "Verdicts of the latest analysis by topic, subject and state.", "gauge", tuple(samples)
    )
