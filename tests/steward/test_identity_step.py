"""The step of the turn that joins pods with their devices: once, whatever comes late and whoever starts anew."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import polars as pl
import pytest

from fleet.batch import Batch
from fleet.clock import FixedClock
from fleet.tables import TABLES
from steward.compose import House
from steward.config import load_settings
from steward.cycle import collect
from store.store import Store
from tests.collectors.identity_world import Row, at, gpu, node, pod, seen


class Teller:
    """A source that tells what it was given, once."""

    name = "kubernetes:c"

    def __init__(self) -> None:
        self.rows: dict[str, list[Row]] = {}

    def collect(self, since: datetime | None, until: datetime) -> Iterator[Batch]:  # noqa: ARG002 - the port's
        frames = {name: pl.DataFrame(rows, schema=_schema(name, rows)) for name, rows in self.rows.items()}
        self.rows = {}
        yield Batch(self.name, frames, read_until=until)


def _schema(name: str, rows: list[Row]) -> dict[str, pl.DataType]:
    wire = TABLES[name].schema("wire")
    return {column: dtype for column, dtype in wire.items() if any(column in row for row in rows)}


def announced(*gpus: Row) -> list[Row]:
    return [{**{name: value for name, value in row.items() if name != "gpu"}, "gpu_uuid": row["uuid"]} for row in gpus]


@pytest.fixture
def house() -> Iterator[House]:
    clock = FixedClock(at("10:00"))
    with Store.open(None, clock=clock) as store:
        yield House(load_settings(None, {}), store, clock, (Teller(),))


def turn_at(house: House, moment: str | datetime, **rows: list[Row]) -> int:
    """Collect at a moment what is told then; return the rows of `pod_allocation` that were written."""
    now = at(moment) if isinstance(moment, str) else moment
    clock, (source,) = house.clock, house.sources
    assert isinstance(clock, FixedClock)
    assert isinstance(source, Teller)
    clock.set(now)
    source.rows = rows
    return collect(house, now).rows.get("pod_allocation", 0)


def standing(house: House) -> list[tuple[object, ...]]:
    found = house.store.read("pod_allocation").filter(
        pl.col("ends_at").is_null() | (pl.col("ends_at") > pl.col("starts_at"))
    )
    columns = ("pod_uid", "gpu", "fraction", "starts_at", "ends_at")
    return found.select(columns).sort("starts_at", "pod_uid", "gpu").rows()


FIRST = {
    "gpu": announced(gpu(0, "GPU-0", last_seen_at=at("10:00")), gpu(1, "GPU-1", last_seen_at=at("10:00"))),
    "node": [node("n1", 2, gpu=2)],
}


def test_a_pod_is_opened_once_and_closed_once(house: House) -> None:
    sight = seen("a", "GPU-1", "10:01", "10:02")
    assert turn_at(house, "10:02", **FIRST, pod=[pod("a", "10:00:30")], holder=[sight]) == 1
    assert turn_at(house, "10:03", holder=[seen("a", "GPU-1", "10:01", "10:03")]) == 0
    assert standing(house) == [("uid-a", 1, 1.0, at("10:00:30"), None)]
    assert turn_at(house, "10:05", pod=[pod("a", "10:00:30", "10:04:10")]) == 1
    assert turn_at(house, "10:06") == 0
    assert standing(house) == [("uid-a", 1, 1.0, at("10:00:30"), at("10:04:10"))]


def test_the_word_that_comes_hours_late_is_joined_and_the_pods_between_are_not_touched(house: House) -> None:
    turn_at(house, "10:02", **FIRST, pod=[pod("a", "10:00", "10:01"), pod("b", "10:01:30")])
    assert standing(house) == []
    assert turn_at(house, "15:00", holder=[seen("a", "GPU-0", "10:00:20", "10:00:50")]) == 1
    assert turn_at(house, "15:01", holder=[seen("b", "GPU-1", "10:02", "15:00")]) == 1
    assert standing(house) == [
        ("uid-a", 0, 1.0, at("10:00"), at("10:01")),
        ("uid-b", 1, 1.0, at("10:01:30"), None),
    ]


def test_what_turns_out_wrong_holds_nothing_any_more(house: House) -> None:
    turn_at(house, "10:02", **FIRST, pod=[pod("a", "10:00")], holder=[seen("a", "GPU-0", "10:01", "10:02")])
    better = seen("a", "GPU-1", "10:01", "10:30", pod_uid="uid-a", source="agent")
    assert turn_at(house, "10:30", holder=[better]) == 2
    assert standing(house) == [("uid-a", 1, 1.0, at("10:00"), None)]
    assert turn_at(house, "10:31") == 0


def test_a_collector_that_starts_anew_opens_nothing_twice(house: House) -> None:
    turn_at(house, "10:02", **FIRST, pod=[pod("a", "10:00")], holder=[seen("a", "GPU-0", "10:01", "10:02")])
    again = seen("a", "GPU-0", "11:00", "11:01")  # it forgot when it first saw it
    assert turn_at(house, "11:01", **FIRST, pod=[pod("a", "10:00")], holder=[again]) == 0
    assert standing(house) == [("uid-a", 0, 1.0, at("10:00"), None)]


def test_an_interval_that_ended_days_ago_is_left_as_it_is(house: House) -> None:
    turn_at(house, "10:02", **FIRST, pod=[pod("a", "10:00", "10:01")], holder=[seen("a", "GPU-0", "10:00", "10:01")])
    before = standing(house)
    days = timedelta(days=3)
    turn_at(house, at("10:00") + days)
    late = {**seen("a", "GPU-1", "10:00", "10:01"), "source": "agent", "pod_uid": "uid-a"}
    assert turn_at(house, at("10:05") + days, holder=[late]) == 0
    assert standing(house) == before


def test_a_holder_whose_teller_forgot_it_is_closed_when_its_gpu_is_seen_without_it(house: House) -> None:
    stranger = seen("x", "GPU-0", "10:00", "10:02", cluster="d", node="m1")
    away = announced(gpu(0, "GPU-0", "m1", cluster="d", last_seen_at=at("10:02")))
    turn_at(house, "10:02", gpu=away, holder=[stranger])
    assert standing(house) == [("d/ml/x", 0, 1.0, at("10:00"), None)]
    turn_at(house, "10:30", gpu=announced(gpu(0, "GPU-0", "m1", cluster="d", last_seen_at=at("10:30"))))
    assert standing(house) == [("d/ml/x", 0, 1.0, at("10:00"), at("10:02"))]
    assert house.store.read("holder").get_column("ends_at").to_list() == [at("10:02")]


def test_a_long_holder_keeps_its_beginning_when_its_first_sightings_are_too_old_to_be_looked_at(house: House) -> None:
    away = announced(gpu(0, "GPU-0", "m1", cluster="d", last_seen_at=at("10:02")))
    turn_at(house, "10:02", gpu=away, holder=[seen("x", "GPU-0", "10:00", "10:02", cluster="d", node="m1")])
    for day in range(1, 5):  # a new row a day, as from a teller that forgets
        now = at("10:00") + timedelta(days=day)
        row = seen("x", "GPU-0", "10:00", "10:02", cluster="d", node="m1", source=f"run {day}")
        row |= {"starts_at": now - timedelta(days=1), "last_seen_at": now}
        turn_at(house, now, holder=[row])
    assert standing(house) == [("d/ml/x", 0, 1.0, at("10:00"), None)]


def test_a_store_without_pods_is_left_alone(house: House) -> None:
    assert turn_at(house, "10:02", **FIRST) == 0
    assert house.store.watermark("identity") is None


def test_a_pod_whose_gpu_nobody_tells_is_noticed_once(house: House) -> None:
    turn_at(house, "10:02", **FIRST, pod=[pod("a", "10:00")])
    for minute in range(3, 30):
        turn_at(house, f"10:{minute:02d}")
    told = house.store.read("source_failure").filter(pl.col("source") == "identity")
    assert told.select("kind", "place", "row_count", "example").rows() == [("noticed", "pod", 1, "c/ml/a")]
