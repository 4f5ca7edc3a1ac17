"""The store as it stood: what came later is not there, and SQL moved in time is the SQL that would be written."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import ibis.expr.types as ir
import polars as pl
import pytest

from analytics.health_policy import HealthPolicy
from analytics.health_signals import health_events, health_signals
from analytics.idle import IdlePolicy
from analytics.idle_signals import idle_signals
from fleet.batch import Batch
from fleet.clock import FixedClock
from store.engine import compiled
from store.past import PastEngine, Phrasebook, shifted
from store.store import Store

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open(None, clock=FixedClock(NOW + 24 * HOUR)) as opened:
        gpus = [
            {"gpu_uuid": uuid, "uuid": uuid, "cluster": "east", "node": "n1", "first_seen_at": seen,
             "last_seen_at": NOW + 9 * HOUR}
            for uuid, seen in (("GPU-old", NOW - 9 * HOUR), ("GPU-new", NOW + HOUR))
        ]  # fmt: skip
        samples = [{"gpu_uuid": "GPU-old", "ts": NOW + place * HOUR, "utilization": 0.5} for place in (-5, -4, 0, 8)]
        pods = [
            {"cluster": "east", "namespace": "a", "pod": f"p{place}", "pod_uid": f"p{place}", "gpu_uuid": "GPU-old",
             "fraction": 1.0, "starts_at": NOW + since * HOUR, "ends_at": NOW + until * HOUR}
            for place, (since, until) in enumerate(((-3, -1), (-1, 2), (1, 3)))
        ]  # fmt: skip
        jobs = [
            {"job_id": "j", "cluster": "east", "gpus": 1.0, "submitted_at": NOW - HOUR, "started_at": NOW + HOUR,
             "ended_at": NOW + 2 * HOUR, "status": "succeeded"}
        ]  # fmt: skip
        node = pl.DataFrame({"cluster": ["east"], "node": ["n1"], "is_ready": [False], "last_seen_at": [NOW + HOUR]})
        frames = {
            "gpu": pl.DataFrame(gpus),
            "gpu_sample": pl.DataFrame(samples, schema_overrides={"utilization": pl.Float32}),
            "pod_allocation": pl.DataFrame(pods),
            "job": pl.DataFrame(jobs),
            "node": node,
        }
        opened.append(Batch("test", frames, NOW + 9 * HOUR))
        opened.roll_up(NOW - 9 * HOUR, NOW + 9 * HOUR)
        yield opened


def read(store: Store, table: str, moment: datetime = NOW) -> pl.DataFrame:
    engine = PastEngine(store.engine, moment)
    assert compiled(engine.table(table)) == compiled(engine[table])
    return engine.run(engine.table(table))


def test_rows_of_later_moments_are_not_there(store: Store) -> None:
    assert read(store, "gpu_sample")["ts"].to_list() == [NOW - 5 * HOUR, NOW - 4 * HOUR]
    assert read(store, "gpu_hour")["hour_at"].max() == NOW - 4 * HOUR
    assert read(store, "gpu")["uuid"].to_list() == ["GPU-old"]


def test_what_had_not_ended_yet_is_open(store: Store) -> None:
    assert read(store, "pod_allocation").sort("pod").select("pod", "ends_at").rows() == [
        ("p0", NOW - HOUR),
        ("p1", None),
    ]
    job = read(store, "job").row(0, named=True)
    assert (job["status"], job["started_at"], job["ended_at"]) == ("pending", None, None)


def test_a_silent_gpu_is_not_known_to_come_back(store: Store) -> None:
    assert read(store, "gpu")["last_seen_at"].to_list() == [NOW - 3 * HOUR]


def test_what_is_kept_only_as_last_seen_is_unknown(store: Store) -> None:
    assert read(store, "node").row(0, named=True)["is_ready"] is None


def asked(store: Store, moment: datetime) -> list[str]:
    """Return the SQL of the heavy questions of a moment."""
    engine = PastEngine(store.engine, moment)
    questions = (
        idle_signals(engine, moment, IdlePolicy()),
        health_signals(engine, moment, HealthPolicy()),
        health_events(engine, moment, HealthPolicy()),
    )
    return [compiled(each) for each in questions]


@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(hours=13), timedelta(days=40)], ids=str)
def test_sql_moved_by_hours_is_the_sql_of_that_moment(store: Store, ahead: timedelta) -> None:
    moment = NOW.replace(minute=7, second=3, microsecond=5)
    here, there = (asked(store, at) for at in (moment, moment + ahead))
    assert [shifted(sql, ahead) for sql in here] == there


def test_questions_that_share_their_columns_are_kept_apart(store: Store) -> None:
    phrases = Phrasebook()
    for hours in range(4):
        moment = NOW + hours * HOUR
        engine = PastEngine(store.engine, moment, phrases)
        samples = engine.table("gpu_sample")
        everything, nothing = samples.select("ts"), samples.filter(samples.ts > moment).select("ts")
        assert engine.run(everything).height > 0
        assert engine.run(nothing).height == 0


def test_a_known_question_is_not_built_again_on_the_same_day_and_answers_its_own_moment(store: Store) -> None:
    phrases, built = Phrasebook(), []
    found = []
    for hours in range(5):
        engine = PastEngine(store.engine, NOW + hours * HOUR, phrases)

        def build(engine: PastEngine = engine) -> ir.Table:
            built.append(engine)
            return engine.table("pod_allocation")

        found.append(engine.ask(("held",), build).height)
    assert len(built) == 2
    assert found == [2, 3, 3, 3, 3]
