"""The order `ingest`: a batch arrives as it was sent, twice is once, and what is wrong is named and not stored."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fleet.batch import Batch, Trouble
from fleet.clock import FixedClock
from fleet.errors import BadInput
from steward.compose import House, open_house
from steward.config import load_settings
from steward.desk import HouseDesk
from steward.ingest_desk import pack, unpack

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def batch(ts: datetime = NOW, power_w: float = 70.0) -> Batch:
    frames = {
        "gpu": pl.DataFrame({"gpu_uuid": ["GPU-a"], "uuid": ["GPU-a"], "cluster": ["c1"], "node": ["n1"]}),
        "gpu_sample": pl.DataFrame(
            {"gpu_uuid": ["GPU-a"], "ts": [ts], "power_w": [power_w], "utilization": [0.5], "is_remap_failed": [False]}
        ),
        "event": pl.DataFrame(
            {"ts": [ts], "cluster": ["c1"], "node": ["n1"], "kind": ["xid"], "code": [79], "source": ["nvml"]}
        ),
    }
    return Batch("nvml", frames, ts, (Trouble("failed", "n1, serial", "no permission", 2, "GPU 1"),)).checked()


def sent(given: Batch, at: datetime = NOW) -> dict[str, Any]:
    """Return what arrives: it went through JSON."""
    arrived: dict[str, Any] = json.loads(json.dumps(pack(given, "n1", at)))
    return arrived


@pytest.fixture
def house(tmp_path: Path) -> Any:
    with open_house(load_settings(None, {}), tmp_path / "s.duckdb", FixedClock(NOW + timedelta(seconds=1))) as opened:
        yield opened


def test_a_batch_arrives_as_it_was_sent() -> None:
    given = batch()
    arrived = unpack(sent(given))
    assert (arrived.source, arrived.read_until, arrived.troubles) == (given.source, given.read_until, given.troubles)
    assert set(arrived.frames) == set(given.frames)
    assert all(arrived.frames[name].equals(given.frames[name]) for name in given.frames)


def test_a_batch_without_rows_arrives_too() -> None:
    assert unpack(sent(Batch("pods"))) == Batch("pods", {}, None, ())


def test_taken_twice_it_is_stored_once_and_rolled_up(house: House) -> None:
    desk = HouseDesk(house)
    reports = [desk.operate("ingest", sent(batch())) for _ in range(2)]
    assert reports[0]["summary"] == {"event rows": 1, "gpu rows": 1, "gpu_sample rows": 1}
    assert reports[1]["summary"] == {"event rows": 0, "gpu rows": 0, "gpu_sample rows": 0}
    assert [house.store.read(name).height for name in ("gpu_sample", "event", "gpu_hour")] == [1, 1, 1]
    assert house.store.watermark("nvml") == NOW


def test_samples_that_came_before_a_kill_are_rolled_up_after_it(house: House) -> None:
    house.store.append(batch(NOW - timedelta(minutes=40)))
    assert house.store.read("gpu_hour").is_empty()
    HouseDesk(house).operate("ingest", sent(batch()))
    assert house.store.read("gpu_hour").get_column("sample_count").to_list() == [1, 1]


def test_a_turn_under_way_does_not_hold_up_a_batch(house: House) -> None:
    desk = HouseDesk(house)
    desk.turn_now(lambda _house, _now: desk.operate("ingest", sent(batch())))
    assert house.store.read("gpu_sample").height == 1


@pytest.mark.parametrize(
    ("off_s", "reason"),
    [(0, None), (30, None), (-29, None), (300, "5 minutes ahead of"), (-300, "5 minutes behind")],
    ids=str,
)
def test_a_sender_whose_clock_is_off_is_told_and_its_rows_are_kept(
    house: House, off_s: int, reason: str | None
) -> None:
    moment = house.clock.now() + timedelta(seconds=off_s)
    HouseDesk(house).operate("ingest", sent(batch(moment), moment))
    noticed = house.store.read("source_failure").filter(pl.col("kind") == "noticed")
    assert house.store.read("gpu_sample").height == 1
    assert noticed.get_column("place").to_list() == ([] if reason is None else ["n1, clock"])
    assert reason is None or reason in noticed.get_column("reason").item()


def broken(**changes: object) -> dict[str, Any]:
    return sent(batch()) | changes


TRUNCATED = base64.b64encode(base64.b64decode(sent(batch())["frames"]["gpu"])[:-200]).decode()


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({}, "source"),
        (broken(source=""), "source"),
        (broken(source=7), "source"),
        (broken(sent_at="noon"), "sent_at"),
        (broken(sent_at="2026-03-02T12:00:00"), "sent_at"),
        (broken(read_until="later"), "read_until"),
        (broken(frames=[]), "frames"),
        (broken(frames={"gpu": "!"}), "frames.gpu"),
        (broken(frames={"gpu": "aGVsbG8="}), "frames.gpu"),
        (broken(frames={"gpu": TRUNCATED}), "frames.gpu"),
        (broken(frames={"gpu": None}), "frames.gpu"),
        (broken(frames={"unheard_of": sent(batch())["frames"]["gpu"]}), "unheard_of"),
        (broken(frames={"gpu_sample": sent(batch())["frames"]["gpu"]}), "uuid"),
        (broken(troubles={}), "troubles"),
        (broken(troubles=[{"kind": "odd"}]), "troubles"),
        (broken(troubles=["odd"]), "troubles"),
        (broken(troubles=[{"kind": "failed", "place": "x", "reason": "y", "rows": -1}]), "troubles.rows"),
        (broken(troubles=[{"kind": "failed", "place": "x", "rows": 1}]), "reason"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_batch_is_refused_by_name_and_nothing_is_stored(
    house: House, parameters: dict[str, Any], field: str
) -> None:
    with pytest.raises(BadInput, match=field):
        HouseDesk(house).operate("ingest", parameters)
    assert [house.store.read(name).height for name in ("gpu", "gpu_sample", "event", "source_failure")] == [0, 0, 0, 0]
