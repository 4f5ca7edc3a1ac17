"""Roll-up: samples become one row per GPU and clock hour."""

from datetime import datetime, timedelta

import duckdb

from store.ask import ask, count
from store.moments import EPOCH, HOUR, hour_of

ACTIVE_ABOVE = 0.05
# No board draws more: a step of the counter beyond it is a reading that was wrong, not energy.
_POWER_CEILING_W = 3000
# Whole microseconds, since rounding down TIMESTAMPTZ through the calendar costs four times as much.
_HOUR_US = 3_600_000_000


def roll_up(cursor: duckdb.DuckDBPyConnection, since: datetime | None, until: datetime) -> int:
    """Rebuild gpu_hour for the clock hours touched by `[since, until)`; return the rows written.

    Activity is the best signal of a sample: SM, then GR engine, then NVML utilization (not on MIG parents,
    where it is not measured). Energy is what the counter grew by from one reading to the next, counted in the hour
    of the later one; after a reset it counts from zero, and what passed in a gap of more than an hour is in no hour.
    An hour whose samples were dropped by retention keeps the row it has.
    """
    first = EPOCH if since is None else hour_of(since)
    last = hour_of(until) if until == hour_of(until) else hour_of(until) + HOUR
    ask(
        cursor,
        f"""
        CREATE OR REPLACE TEMP TABLE rolled AS
        WITH sample AS (
            SELECT s.gpu, make_timestamptz(epoch_us(s.ts) // {_HOUR_US} * {_HOUR_US}) AS hour_at,
                s.memory_used_mib, s.power_w, s.temperature_c,
                coalesce(s.sm_activity, s.gr_activity, CASE WHEN g.mig_enabled THEN NULL ELSE s.utilization END)
                    AS activity
            FROM gpu_sample s JOIN gpu g USING (gpu) WHERE s.ts >= ? AND s.ts < ?
        ), counter AS (
            SELECT gpu, epoch_us(ts) AS at_us, energy_j, lag(energy_j) OVER by_time AS before_j,
                epoch_us(ts) - lag(epoch_us(ts)) OVER by_time AS step_us
            FROM gpu_sample WHERE ts >= ? AND ts < ? AND energy_j IS NOT NULL
            WINDOW by_time AS (PARTITION BY gpu ORDER BY ts)
        ), step AS (
            SELECT gpu, at_us, step_us,
                CASE WHEN energy_j >= before_j THEN energy_j - before_j ELSE energy_j END AS step_j
            FROM counter WHERE step_us <= {_HOUR_US} AND at_us >= ?
        ), energy AS (
            SELECT gpu, make_timestamptz(at_us // {_HOUR_US} * {_HOUR_US}) AS hour_at, sum(step_j) AS energy_j
            FROM step WHERE step_j * 1e6 <= {_POWER_CEILING_W}::DOUBLE * step_us GROUP BY ALL
        ), hours AS (
        SELECT gpu, hour_at, count(*)::INTEGER AS sample_count, avg(activity)::FLOAT AS activity_mean,
            max(activity) AS activity_max, count_if(activity > {ACTIVE_ABOVE}::FLOAT)::INTEGER AS active_sample_count,
            count(activity)::INTEGER AS known_sample_count, max(memory_used_mib) AS memory_used_mib_max,
            avg(power_w)::FLOAT AS power_w_mean, max(temperature_c) AS temperature_c_max
        FROM sample GROUP BY gpu, hour_at
        )
        SELECT hours.*, energy.energy_j FROM hours LEFT JOIN energy USING (gpu, hour_at)
        """,  # noqa: S608 - the only values put in are our own numbers
        [first, last, first - HOUR, last, (first - EPOCH) // timedelta(microseconds=1)],
    )
    ask(cursor, "DELETE FROM gpu_hour AS e USING rolled r WHERE e.gpu = r.gpu AND e.hour_at = r.hour_at")
    return count(cursor, "INSERT INTO gpu_hour BY NAME SELECT * FROM rolled ORDER BY gpu, hour_at")
