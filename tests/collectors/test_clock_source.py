"""A clock that is set is an event, and no sample is lost or written over for it."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from collectors.agent import Agent
from collectors.clock_source import ClockSource
from fleet.batch import Batch
from fleet.clock import FixedClock
from fleet.errors import BadInput
from store.store import Store
from tests.collectors.test_agent import Node, Ticker

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


class Steady:
    """A clock that can't be set."""

    def __init__(self) -> None:
        self.now_s = 5000.0

    def __call__(self) -> float:
        return self.now_s


def told(source: ClockSource, clock: FixedClock, steady: Steady, *steps: tuple[float, float]) -> list[str]:
    """Read after each step (by how much the clock and the steady clock went on), and return what was told."""
    batches = list(source.collect(None, clock.now()))
    for by_s, really_s in steps:
        clock.move(timedelta(seconds=by_s))
        steady.now_s += really_s
        batches += source.collect(None, clock.now())
    assert all(batch.frames["event"]["kind"].to_list() == ["clock_jump"] for batch in batches)
    return [message for batch in batches for message in batch.frames["event"]["message"].to_list()]


@pytest.mark.parametrize(
    ("steps", "messages"),
    [
        ([(10, 10), (10.3, 10), (9.8, 10)], []),
        ([(310, 10), (10, 10)], ["the clock was set forward by 300.0 s"]),
        ([(-290, 10), (10, 10)], ["the clock was set back by 300.0 s"]),
        ([(310, 10), (-290, 10)], ["the clock was set forward by 300.0 s", "the clock was set back by 300.0 s"]),
        ([(600, 600)], []),
        ([(0, 0)], []),
    ],
    ids=["slewed", "forward", "back", "there and back", "a long turn", "at once"],
)
def test_only_a_clock_that_was_set_is_told(steps: list[tuple[float, float]], messages: list[str]) -> None:
    clock, steady = FixedClock(NOW), Steady()
    assert told(ClockSource(clock, "c1", "n1", monotonic_s=steady), clock, steady, *steps) == messages


def test_a_tolerance_that_means_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match="tolerance_s"):
        ClockSource(FixedClock(NOW), "c1", "n1", tolerance_s=0)


def gpu() -> pl.DataFrame:
    return pl.DataFrame({"gpu_uuid": ["GPU-a"], "uuid": ["GPU-a"], "cluster": ["c1"], "node": ["n1"]})


@pytest.mark.parametrize("jump_s", [300, -300], ids=["forward", "back"])
def test_a_clock_five_minutes_off_costs_no_sample(jump_s: int) -> None:
    clock, steady = FixedClock(NOW), Steady()
    with Store.open(None, clock=clock) as store:
        store.append(Batch("nvml", {"gpu": gpu()}))
        jumps = ClockSource(clock, "c1", "n1", monotonic_s=steady)
        agent = Agent([jumps, Node(clock, takes_s=0.01)], clock=clock, wait=Ticker(clock, 60), sink=store.append)
        agent.turn()
        for turn in range(60):
            clock.move(timedelta(seconds=10 + (jump_s if turn == 40 else 0), milliseconds=1))
            steady.now_s += 10
            agent.turn()
        assert store.read("gpu_sample").height == 61
        assert store.read("event").select("kind", "node").rows() == [("clock_jump", "n1")]


def test_after_the_clock_was_set_back_samples_return_to_the_ticks_where_none_stand_yet() -> None:
    clock = FixedClock(NOW)
    stored: list[Batch] = []
    agent = Agent([Node(clock)], clock=clock, wait=Ticker(clock, 0), sink=stored.append)
    for by_s in (0.05, 10, -10.02, 10, 10):
        clock.move(timedelta(seconds=by_s))
        agent.turn()
    assert [(batch.frames["gpu_sample"]["ts"].item() - NOW).total_seconds() for batch in stored] == [
        0, 10, 0.03, 10.03, 20,
    ]  # fmt: skip
