"""Outages: after each of them no sample is missing that the server still has, and none is there twice."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

from collectors.prometheus import PrometheusSource
from collectors.prometheus_settings import PrometheusSettings
from fleet.clock import FixedClock
from fleet.errors import SourceFailed
from store.store import Store

pytestmark = pytest.mark.enable_socket


def _sibling(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


past = _sibling("prometheus_history")
START = datetime(2026, 3, 2, 10, tzinfo=UTC)
STEP, TURN = timedelta(seconds=30), timedelta(minutes=2)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


def gpu(number: int = 0, /, **labels: str) -> dict[str, str]:
    return {
        "__name__": "DCGM_FI_DEV_GPU_TEMP",
        "UUID": f"GPU-{number}",
        "Hostname": "n1",
        "job": "dcgm",
        "instance": "i1",
    } | labels


def scraped(labels: dict[str, str], start: datetime, end: datetime, value: float = 40.0) -> Any:  # a series
    return past.Scraped(labels, [(ts, value) for ts in past.every(STEP, start, end)])


class Collector:
    """A collector with its store, that turns every two minutes, and may be started anew."""

    def __init__(self, store: Store, clock: FixedClock, url: str, **settings: float) -> None:
        self.store, self.clock, self.url = store, clock, url
        self.settings = PrometheusSettings(url=url, **{"backfill_s": 3600.0, "attempts": 2, **settings})  # type: ignore[arg-type]  # a test's shorthand
        self.failures = 0
        self.restart()

    def restart(self) -> None:
        self.source = PrometheusSource(self.settings, self.clock, "east", wait=lambda _seconds: None)

    def stop(self) -> None:
        self.source.close()

    def turn(self, batches: int = 1_000) -> None:
        """Collect once; killed after so many batches."""
        try:
            for number, batch in enumerate(
                self.source.collect(self.store.watermark(self.source.name), self.clock.now())
            ):
                if number == batches:
                    return
                self.store.append(batch)
        except SourceFailed:
            self.failures += 1

    def turns(self, until: datetime, before: Callable[[], object] = lambda: None) -> None:
        while self.clock.now() < until:
            self.clock.move(TURN)
            before()
            self.turn()

    def moments(self) -> list[tuple[str, datetime]]:
        """Return which GPU has a sample when."""
        uuids = self.store.read("gpu").select("gpu", "uuid")
        rows = self.store.read("gpu_sample").join(uuids, on="gpu").select("uuid", "ts").sort("uuid", "ts")
        return rows.rows()


@pytest.fixture
def start() -> Iterator[Callable[..., Collector]]:
    with ExitStack() as stack:

        def begin(history: object, clock: FixedClock, **settings: float) -> Collector:
            store = stack.enter_context(Store.open(None, clock=clock))
            collector = Collector(store, clock, stack.enter_context(past.serving(history)), **settings)
            stack.callback(collector.stop)
            return collector

        yield begin


Start = Callable[..., Collector]


def expected(end: datetime, *gpus: int) -> list[tuple[str, datetime]]:
    return [(f"GPU-{n}", ts) for n in gpus for ts in past.every(STEP, START, end)]


def steady(clock: FixedClock, *gpus: int, **more: object) -> Any:  # a history of the sibling
    """Return a history of GPUs that are scraped for two hours; its clock is the collector's."""
    return past.History([scraped(gpu(n), START, START + 2 * HOUR) for n in gpus], clock.now, **more)


@pytest.mark.parametrize(
    "fault",
    [
        lambda _question, _good: past.Answer(503, b"starting up"),
        lambda _question, _good: past.Answer(500, b"<html>"),
        lambda _question, good: past.Answer(200, good[: len(good) // 2]),
        lambda _question, good: past.Answer(200, good, cut_after=40),
        lambda _question, _good: past.Answer(429, b"slow down"),
    ],
    ids=["restarting", "5xx in HTML", "truncated JSON", "hung up in the middle", "429"],
)
def test_ten_minutes_of_failures_leave_no_gap(start: Start, fault: object) -> None:
    clock = FixedClock(START)
    history = steady(clock, 0, 1)
    collector = start(history, clock)
    collector.turns(START + 6 * MINUTE)
    history.fault = fault
    collector.turns(START + 16 * MINUTE)
    assert collector.failures == 5
    history.fault = past.never
    collector.turns(START + 20 * MINUTE)
    assert collector.moments() == expected(START + 20 * MINUTE, 0, 1)


def test_a_server_that_is_gone_and_comes_back_leaves_no_gap() -> None:
    clock = FixedClock(START + 4 * MINUTE)
    history = steady(clock, 0)
    with Store.open(None, clock=clock) as store:
        with past.serving(history) as url:
            collector = Collector(store, clock, url)
            collector.turn()
        collector.turns(START + 14 * MINUTE)
        assert collector.failures == 5
        with past.serving(history, int(url.rpartition(":")[2])):
            collector.turns(START + 16 * MINUTE)
        collector.source.close()
        assert collector.moments() == expected(START + 16 * MINUTE, 0)


def test_a_server_too_slow_for_an_hour_is_asked_for_less() -> None:
    clock = FixedClock(START + HOUR)

    def slow(question: object, good: bytes) -> object:
        is_long = question.end - question.start > 20 * MINUTE  # type: ignore[attr-defined]  # a question
        return past.Answer(200, good, hold_s=0.25) if is_long else None

    history = steady(clock, 0, fault=slow)
    with Store.open(None, clock=clock) as store, past.serving(history) as url:
        collector = Collector(store, clock, url, timeout_s=0.15, attempts=1, backfill_s=3601.0)
        collector.turn()
        collector.source.close()
        assert collector.failures == 0
        assert collector.moments() == expected(START + HOUR, 0)


def test_a_server_that_may_load_few_samples_is_asked_for_less(start: Start) -> None:
    clock = FixedClock(START + HOUR)
    collector = start(steady(clock, 0, 1, samples_max=50), clock, backfill_s=3601.0)
    collector.turn()
    assert collector.moments() == expected(START + HOUR, 0, 1)


def test_where_even_a_minute_is_too_much_names_are_asked_for_one_by_one(start: Start) -> None:
    clock = FixedClock(START + 2 * MINUTE)
    power = scraped(gpu(__name__="DCGM_FI_DEV_POWER_USAGE"), START, START + HOUR, 70.0)
    history = past.History([scraped(gpu(), START, START + HOUR), power], clock.now, samples_max=3)
    collector = start(history, clock, backfill_s=121.0, chunk_s=60.0, overlap_s=30.0)
    collector.turn()
    assert collector.failures == 0
    assert collector.moments() == expected(START + 2 * MINUTE, 0)
    assert collector.store.read("gpu_sample")["power_w"].null_count() == 0


@pytest.mark.parametrize("ahead", [timedelta(minutes=-5), timedelta(minutes=5)], ids=["behind", "ahead"])
def test_a_server_whose_clock_is_five_minutes_off_loses_nothing(start: Start, ahead: timedelta) -> None:
    clock = FixedClock(START + 10 * MINUTE)
    history = past.History([scraped(gpu(), START, START + 2 * HOUR)], lambda: clock.now() + ahead)
    collector = start(history, clock, overlap_s=60.0)
    collector.turns(START + 30 * MINUTE)
    end = START + 30 * MINUTE + min(ahead, timedelta())
    assert collector.moments() == expected(end, 0)
    troubles = collector.store.read("source_failure")
    assert troubles.filter(pl.col("reason").str.contains("clock")).height > 0


def test_samples_that_come_late_are_read_within_the_overlap(start: Start) -> None:
    clock = FixedClock(START)
    late = past.Scraped(gpu(1), [])
    history = past.History([scraped(gpu(), START, START + 2 * HOUR), late], clock.now)
    collector = start(history, clock, overlap_s=300.0)
    collector.turns(START + 10 * MINUTE)
    late.pairs = scraped(gpu(1), START + 6 * MINUTE, START + 2 * HOUR).pairs
    collector.turns(START + 12 * MINUTE)
    found = [ts for uuid, ts in collector.moments() if uuid == "GPU-1"]
    assert found == past.every(STEP, START + 6 * MINUTE, START + 12 * MINUTE)


def test_a_collector_killed_between_chunks_goes_on_where_it_was(start: Start) -> None:
    clock = FixedClock(START + HOUR)
    collector = start(steady(clock, 0, 1), clock, chunk_s=600.0, overlap_s=60.0, backfill_s=3601.0)
    for stored in (0, 1, 2):
        collector.turn(batches=stored)
        collector.restart()
    assert len(collector.moments()) < len(expected(START + HOUR, 0, 1))
    collector.turn()
    assert collector.moments() == expected(START + HOUR, 0, 1)


def test_an_xid_is_told_once_through_kills_and_restarts(start: Start) -> None:
    clock = FixedClock(START)
    gauge = past.Scraped(
        gpu(__name__="DCGM_FI_DEV_XID_ERRORS"),
        [(ts, 0.0 if ts < START + 5 * MINUTE else 79.0) for ts in past.every(STEP, START, START + HOUR)],
    )
    collector = start(past.History([gauge], clock.now), clock)
    collector.turns(START + 4 * MINUTE)
    clock.move(2 * MINUTE)
    collector.turn(batches=0)  # killed with the change in its hands
    collector.turns(START + 12 * MINUTE)
    events = collector.store.read("event")
    assert events.select("code", "ts").rows() == [(79, START + 5 * MINUTE)]


def test_a_duplicate_agent_doubles_nothing_and_stands_in_when_the_first_is_gone(start: Start) -> None:
    clock = FixedClock(START)
    offset = timedelta(seconds=11)
    end = START + 20 * MINUTE
    first = past.Scraped(gpu(), [(ts, 40.0) for ts in past.every(STEP, START, START + 10 * MINUTE)])
    second = past.Scraped(gpu(instance="i2"), [(ts + offset, 50.0) for ts in past.every(STEP, START, end)])
    collector = start(past.History([first, second], clock.now), clock)
    collector.turns(end)
    ours = [ts for _, ts in collector.moments()]
    assert ours[:21] == past.every(STEP, START, START + 10 * MINUTE)
    gaps = [later - earlier for earlier, later in pairwise(ours)]
    assert max(gaps) <= STEP + offset
    assert min(gaps) >= STEP


@pytest.mark.parametrize(
    "now", [{"Hostname": "renamed"}, {"Hostname": "n9", "instance": "i9"}], ids=["renamed", "moved"]
)
def test_a_gpu_whose_node_is_another_now_goes_on_as_the_same_gpu(start: Start, now: dict[str, str]) -> None:
    clock = FixedClock(START)
    middle, end = START + 10 * MINUTE, START + 20 * MINUTE
    later = scraped(gpu(0, **now), middle + STEP, START + HOUR)
    history = past.History([scraped(gpu(), START, middle), later], clock.now)
    collector = start(history, clock)
    collector.turns(end)
    assert collector.moments() == expected(end, 0)
    assert collector.store.read("gpu").select("uuid", "node").rows() == [("GPU-0", now["Hostname"])]


def test_a_store_behind_the_server_that_did_not_answer_is_asked_again(start: Start) -> None:
    clock = FixedClock(START)
    history = steady(clock, 0, 1)
    whole = history.series
    collector = start(history, clock, overlap_s=30.0)
    collector.turns(START + 6 * MINUTE)

    def partial(_question: object, good: bytes) -> object:
        return past.Answer(200, good[:-1] + b', "warnings": ["store 10.0.0.2 did not answer"]}')

    history.series, history.fault = whole[:1], partial
    collector.turns(START + 16 * MINUTE)
    history.series, history.fault = whole, past.never
    collector.turns(START + 20 * MINUTE)
    assert collector.moments() == expected(START + 20 * MINUTE, 0, 1)
