"""How each source does: what doctor and /metrics tell of lag, coverage, failures and rejects."""

from datetime import datetime

import polars as pl

from analytics.source_hints import hint
from analytics.telemetry import NOT_SOURCES, Policy, coverage, judge_sources, samples_by_gpu, troubles_by_source
from fleet.tables import WATERMARK
from steward.compose import House


def judged_sources(house: House, now: datetime) -> pl.DataFrame:
    """Return a row per source, configured or ever read: as `judge_sources`, with is_configured and hint."""
    engine, policy = house.store.engine, Policy()
    since = now - policy.window
    marks = house.store.read("watermark").rename({"ts": "read_until"})
    troubles = engine.run(troubles_by_source(engine, since))
    configured = [source.name for source in house.sources]
    known = {*marks.get_column("source"), *troubles.get_column("source"), *configured} - NOT_SOURCES
    names = pl.DataFrame({"source": sorted(known)}, schema={"source": WATERMARK.schema()["source"]})
    covered = coverage(engine.run(samples_by_gpu(engine, since, now)), since, now)
    judged = judge_sources(names.join(marks, on="source", how="left"), troubles, covered, policy, now)
    hints = [hint(*row) for row in judged.select("source", "state", "last_error").iter_rows()]
    return judged.with_columns(pl.Series("hint", hints, pl.String()), is_configured=pl.col("source").is_in(configured))
