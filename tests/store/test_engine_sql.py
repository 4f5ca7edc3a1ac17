"""The SQL that an expression becomes: seconds since 1970 without the calendar, and the same ones."""

from datetime import UTC, datetime, timedelta

import polars as pl

from fleet.batch import Batch
from fleet.clock import FixedClock
from store.engine import compiled
from store.store import Store

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def test_seconds_since_1970_do_not_go_through_the_calendar_and_are_the_same() -> None:
    moment = NOW - timedelta(milliseconds=250)
    with Store.open(None, clock=FixedClock(NOW)) as store:
        gpu = pl.DataFrame({"gpu_uuid": ["G"], "uuid": ["G"], "cluster": ["c"], "node": ["n"]})
        sample = pl.DataFrame({"gpu_uuid": ["G"], "ts": [moment]})
        store.append(Batch("test", {"gpu": gpu, "gpu_sample": sample}, NOW))
        samples = store.engine.table("gpu_sample")
        asked = samples.select(seconds=samples.ts.epoch_seconds())
        assert "CAST" not in compiled(asked)
        assert store.engine.run(asked)["seconds"].to_list() == [moment.timestamp()]


def test_what_is_left_of_an_answer_can_be_put_into_words_whatever_pieces_it_came_in() -> None:
    rows = "SELECT 'c' AS cluster, 'gone' AS node UNION ALL SELECT * FROM (VALUES ('c', 'a'), ('c', 'b')) AS others"
    with Store.open(None, clock=FixedClock(NOW)) as store:
        found = store.engine.query(rows)
    left = found.filter(pl.Series([node != "gone" for node in found["node"]]))
    assert sorted(left.select(told=pl.format("{}/{}", "cluster", "node"))["told"]) == ["c/a", "c/b"]
