"""The state of the house as Prometheus metrics."""

from collections import Counter

import polars as pl

from api.exposition import Metric, Sample, expose, metric
from steward.compose import House
from steward.health_gauges import health_gauges
from steward.loop import LoopState


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
        Metric(
            "steward_source_lag_seconds",
            "Seconds since the moment up to which a source has been read.",
            "gauge",
            tuple(
                Sample((now - mark).total_seconds(), {"source": source.name})
                for source in house.sources
                if (mark := house.store.watermark(source.name)) is not None
            ),
        ),
        _failures(house),
        _verdicts(house),
        *health_gauges(house),
    ]
    if state is not None:
        metrics.append(metric("steward_turns_total", "Turns that went well.", state.turns, "counter"))
        metrics.append(metric("steward_turn_failures_total", "Turns that failed.", state.failures, "counter"))
    return expose(metrics)


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
