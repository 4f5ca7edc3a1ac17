"""The agent's loop: ticks that do not drift, batches that wait for the store, and its own HTTP server."""

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from collectors.agent import Agent, AgentPolicy, seconds_to_tick, snapped
from collectors.agent_http import parse_listen, serving_metrics
from collectors.exposition import Exposition
from fleet.batch import Batch, Trouble
from fleet.clock import FixedClock
from fleet.errors import BadInput, SourceFailed, SourceUnavailable, StoreBusy
from fleet.frames import conform
from fleet.tables import TABLES

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def sample_frame(ts: datetime, power_w: float = 70.0) -> pl.DataFrame:
    rows = {"gpu_uuid": ["GPU-a"], "ts": [ts], "power_w": [power_w]}
    schema = TABLES["gpu_sample"].schema("wire")
    return conform(pl.DataFrame(rows, schema={name: schema[name] for name in rows}), TABLES["gpu_sample"])


class Node:
    """A source of one GPU: what it does is put in as functions, one a reading, the last one for ever."""

    def __init__(
        self, clock: FixedClock, *readings: Callable[[], None], name: str = "nvml", takes_s: float = 0
    ) -> None:
        self.name, self._clock, self._readings, self._takes_s = name, clock, list(readings), takes_s
        self.since: list[datetime | None] = []

    def collect(self, since: datetime | None, until: datetime) -> Iterator[Batch]:
        self.since.append(since)
        if self._readings:
            (self._readings.pop(0) if len(self._readings) > 1 else self._readings[0])()
        self._clock.move(timedelta(seconds=self._takes_s))
        yield Batch(self.name, {"gpu_sample": sample_frame(until)}, until)


def fails(error: Exception) -> Callable[[], None]:
    def reading() -> None:
        raise error

    return reading


def works() -> None:
    """Do nothing: the reading is whole."""


class Ticker:
    """Waits by moving the clock, and says stop after so many waits."""

    def __init__(self, clock: FixedClock, turns: int) -> None:
        self._clock, self._left = clock, turns
        self.waited_s: list[float] = []

    def __call__(self, seconds: float) -> bool:
        if self._left == 0:
            return True
        self._left -= 1
        self.waited_s.append(seconds)
        self._clock.move(timedelta(seconds=seconds))
        return False


def moments(batches: list[Batch]) -> list[datetime]:
    return [ts for batch in batches for ts in batch.frames.get("gpu_sample", pl.DataFrame({"ts": []}))["ts"].to_list()]


@pytest.mark.parametrize(("second", "wait_s"), [(0.0, 10.0), (0.25, 9.75), (9.999, 0.001), (47.5, 2.5)], ids=str)
def test_the_wait_ends_at_the_next_tick(second: float, wait_s: float) -> None:
    assert seconds_to_tick(NOW + timedelta(seconds=second), 10.0) == pytest.approx(wait_s, abs=1e-6)


def test_turns_do_not_drift_whatever_a_reading_takes() -> None:
    clock = FixedClock(NOW + timedelta(seconds=3))
    stored: list[Batch] = []
    ticker = Ticker(clock, 4)
    Agent([Node(clock, takes_s=0.7)], clock=clock, wait=ticker, sink=stored.append).run()
    assert moments(stored) == [NOW + timedelta(seconds=second) for second in (10, 20, 30, 40)]
    assert ticker.waited_s == pytest.approx([7.0, 9.3, 9.3, 9.3])


def test_a_tick_that_a_long_reading_ran_over_is_left_out_and_not_made_up_for() -> None:
    clock = FixedClock(NOW)
    stored: list[Batch] = []
    Agent([Node(clock, takes_s=23)], clock=clock, wait=Ticker(clock, 3), sink=stored.append).run()
    assert moments(stored) == [NOW + timedelta(seconds=second) for second in (10, 40, 70)]


@pytest.mark.parametrize(
    ("second", "expected"),
    [(0.0, 0.0), (0.4, 0.0), (9.6, 10.0), (1.0, 0.0), (1.5, 1.5), (5.0, 5.0), (8.9, 8.9)],
    ids=str,
)
def test_a_sample_near_a_tick_bears_its_time_and_another_its_own(second: float, expected: float) -> None:
    batch = Batch("nvml", {"gpu_sample": sample_frame(NOW + timedelta(seconds=second))}, NOW)
    assert moments([snapped(batch, AgentPolicy())]) == [NOW + timedelta(seconds=expected)]


def test_two_agents_on_one_node_give_the_same_keys() -> None:
    stored: list[Batch] = []
    for late_s in (0.02, 0.31):
        clock = FixedClock(NOW + timedelta(seconds=late_s))
        Agent([Node(clock)], clock=clock, wait=Ticker(clock, 0), sink=stored.append).turn()
    assert len(set(moments(stored))) == 1


@pytest.mark.parametrize("error", [SourceFailed("it hangs"), SourceUnavailable("it is not there")], ids=repr)
def test_a_source_that_fails_is_recorded_and_stops_no_other(error: SourceFailed) -> None:
    clock = FixedClock(NOW)
    stored: list[Batch] = []
    sources = [Node(clock, fails(error), name="kernel"), Node(clock)]
    Agent(sources, clock=clock, wait=Ticker(clock, 0), sink=stored.append).turn()
    assert [batch.troubles for batch in stored] == [(Trouble("failed", "kernel", str(error)),), ()]
    assert moments(stored) == [NOW]


def test_a_source_goes_on_where_it_was_last_read_whole() -> None:
    clock = FixedClock(NOW)
    node = Node(clock, works, fails(SourceFailed("once")), works)
    agent = Agent([node], clock=clock, wait=Ticker(clock, 0))
    for _ in range(3):
        agent.turn()
        clock.move(timedelta(seconds=10))
    assert node.since == [None, NOW, NOW]


class Store:
    """A store that takes batches while it is open."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.taken = error, list[Batch]()

    def __call__(self, batch: Batch) -> None:
        if self.error is not None and batch.frames:
            raise self.error
        self.taken.append(batch)


def test_what_a_closed_store_did_not_take_it_gets_in_order_when_it_is_open() -> None:
    clock, store = FixedClock(NOW), Store(StoreBusy("another process has it"))
    agent = Agent([Node(clock)], clock=clock, wait=Ticker(clock, 3), sink=store)
    agent.run()
    assert (store.taken, agent.backlog_count) == ([], 3)
    store.error = None
    agent.turn()
    assert moments(store.taken) == [NOW + timedelta(seconds=second) for second in (10, 20, 30, 30)]
    assert agent.backlog_count == 0


def test_a_backlog_has_a_bound_and_what_it_dropped_is_told() -> None:
    clock, store = FixedClock(NOW), Store(StoreBusy("another process has it"))
    agent = Agent([Node(clock)], clock=clock, wait=Ticker(clock, 5), sink=store, policy=AgentPolicy(backlog_max=2))
    agent.run()
    store.error = None
    agent.turn()
    assert moments(store.taken)[0] >= NOW + timedelta(seconds=40)
    dropped = [trouble.row_count for batch in store.taken for trouble in batch.troubles if trouble.place == "backlog"]
    assert len(moments(store.taken)) + sum(dropped) == 6
    assert dropped


def test_a_batch_that_the_store_refuses_for_ever_holds_up_no_other() -> None:
    clock, store = FixedClock(NOW), Store(BadInput("bad"))
    exposition = Exposition(clock)
    agent = Agent([Node(clock)], clock=clock, wait=Ticker(clock, 2), sink=store, exposition=exposition)
    agent.run()
    assert agent.backlog_count == 0
    assert 'gpu_steward_agent_troubles_total{source="agent",kind="rejected"} 2' in exposition.render()


def test_an_agent_without_a_turn_or_with_an_old_one_is_not_well() -> None:
    clock = FixedClock(NOW)
    agent = Agent([Node(clock)], clock=clock, wait=Ticker(clock, 0))
    assert not agent.is_well()
    agent.turn()
    clock.move(timedelta(seconds=30))
    assert agent.is_well()
    clock.move(timedelta(seconds=1))
    assert not agent.is_well()


def test_a_clock_that_is_set_back_waits_no_longer_than_one_interval() -> None:
    clock = FixedClock(NOW)
    agent = Agent([Node(clock)], clock=clock, wait=Ticker(clock, 0))
    agent.turn()
    clock.move(timedelta(hours=-1, seconds=4))
    assert 0 < seconds_to_tick(clock.now(), 10.0) <= 10
    agent.turn()
    assert agent.is_well()


@pytest.mark.parametrize(
    ("field", "value"),
    [("interval_s", 0), ("interval_s", float("nan")), ("snap_s", 6), ("snap_s", -1), ("backlog_max", 0)],
)
def test_a_policy_refuses_what_means_nothing(field: str, value: float) -> None:
    with pytest.raises(BadInput, match=field):
        AgentPolicy(**{field: value})  # type: ignore[arg-type]  # a wrong number is the point


def get(port: int, path: str) -> tuple[int, str, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def test_metrics_are_served_as_prometheus_wants_them() -> None:
    clock = FixedClock(NOW)
    exposition = Exposition(clock)
    agent = Agent([Node(clock)], clock=clock, wait=Ticker(clock, 0), exposition=exposition)
    agent.turn()
    with serving_metrics(("127.0.0.1", 0), exposition.render, agent.is_well) as port:
        status, kind, text = get(port, "/metrics")
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert 'DCGM_FI_DEV_POWER_USAGE{UUID="GPU-a"} 70.0\n' in text
        assert get(port, "/metrics?collect[]=x")[0] == 200
        assert get(port, "/healthz")[::2] == (200, "ok\n")
        clock.move(timedelta(minutes=5))
        assert get(port, "/healthz")[0] == 503
        assert get(port, "/")[0] == 404


def test_a_reading_under_way_does_not_hold_up_a_scrape() -> None:
    clock = FixedClock(NOW)
    reading, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        reading.set()
        go_on.wait(5)

    exposition = Exposition(clock)
    agent = Agent([Node(clock, works, hang)], clock=clock, wait=Ticker(clock, 0), exposition=exposition)
    agent.turn()
    turn = threading.Thread(target=agent.turn)
    with serving_metrics(("127.0.0.1", 0), exposition.render) as port:
        turn.start()
        assert reading.wait(5)
        assert get(port, "/metrics")[0] == 200
        go_on.set()
        turn.join()


def test_a_client_that_breaks_off_ends_nobody_elses_scrape() -> None:
    with serving_metrics(("127.0.0.1", 0), lambda: "") as port:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET /met")
        assert get(port, "/metrics")[0] == 200


def test_an_address_that_is_taken_is_said_so() -> None:
    with (
        serving_metrics(("127.0.0.1", 0), lambda: "") as port,
        pytest.raises(BadInput, match=f"can't listen at 127.0.0.1:{port}"),
        serving_metrics(("127.0.0.1", port), lambda: ""),
    ):
        pytest.fail("two servers at one address")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":9400", ("0.0.0.0", 9400)),  # noqa: S104 - only parsed
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:9400", ("::1", 9400)),
    ],
)
def test_an_address_to_listen_at(text: str, address: tuple[str, int]) -> None:
    assert parse_listen(text) == address


@pytest.mark.parametrize("text", ["", "9400", "host", "host:", "host:-1", "host:70000", "host:²"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="listen"):
        parse_listen(text)
