"""Agents and the store together: two on one node, a node that is renamed, a GPU that moves to another node."""

import importlib.util
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pynvml
import pytest

from collectors.agent import Agent
from collectors.nvml import NvmlSource
from collectors.nvml_events import EventWatch
from fleet.batch import Batch
from fleet.clock import Clock, FixedClock
from store.store import Store
from tests.collectors.test_agent import Ticker

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def _sibling(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fake = _sibling("nvml_driver")


@pytest.fixture(autouse=True)
def _pynvml_untouched() -> Iterator[None]:
    before = pynvml._nvmlLib_refcount
    yield
    pynvml._nvmlLib_refcount = before


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open(None, clock=FixedClock(NOW + timedelta(hours=1))) as opened:
        yield opened


def quick_watch(clock: Clock) -> EventWatch:
    return EventWatch(clock, wait_ms=5)


class Machine:
    """A node with an agent on it: its driver lists the GPUs that are in it, by number."""

    def __init__(self, name: str, store: Store, *gpus: int, late_s: float = 0.0) -> None:
        self.gpus = list(gpus)
        self.driver = fake.ToldDriver(
            gpu_count=len(gpus), nvmlDeviceGetUUID=self._uuid, nvmlDeviceGetCount_v2=self._count
        )
        self.clock = FixedClock(NOW + timedelta(seconds=late_s))
        self.source = NvmlSource(self.clock, "c1", name, self.driver, make_watch=quick_watch)
        self.sent: list[Batch] = []
        self.agent = Agent([self.source], clock=self.clock, wait=Ticker(self.clock, 0), sink=self._send(store))

    def turn(self) -> None:
        self.agent.turn()
        self.clock.move(timedelta(seconds=10))

    def _send(self, store: Store) -> Callable[[Batch], object]:
        def send(batch: Batch) -> None:
            self.sent.append(batch)
            store.append(batch)

        return send

    def _uuid(self, handle: Any, buffer: Any, _size: Any) -> int:
        buffer.value = f"GPU-{self.gpus[fake.cast(handle, fake.c_void_p).value - 1]}".encode()
        return 0

    def _count(self, out: Any) -> int:
        out._obj.value = len(self.gpus)
        return 0


def test_two_agents_on_one_node_leave_the_rows_of_one(store: Store) -> None:
    with Store.open(None, clock=FixedClock(NOW + timedelta(hours=1))) as single:
        first, alone = Machine("n1", store, 0, 1), Machine("n1", single, 0, 1)
        second = Machine("n1", store, 0, 1, late_s=0.4)
        for machine in (first, second, alone):
            machine.turn()
        for machine in (first, second, alone):
            machine.driver.tell(1, pynvml.nvmlEventTypeXidCriticalError, 79)
            machine.driver.told.join()
        for _ in range(3):
            for machine in (first, second, alone):
                machine.turn()
        for table in ("gpu", "slice", "node", "gpu_sample", "event"):
            assert store.read(table).height == single.read(table).height, table
        assert store.read("event").select("gpu_uuid", "kind", "code").rows() == [("GPU-1", "xid", 79)]
        assert store.read("gpu_sample").select("gpu", "ts").equals(single.read("gpu_sample").select("gpu", "ts"))
    for machine in (first, second, alone):
        machine.source.close()


def test_a_batch_sent_twice_is_stored_once(store: Store) -> None:
    machine = Machine("n1", store, 0, 1)
    for _ in range(3):
        machine.turn()
    before = {name: store.read(name) for name in ("gpu", "gpu_sample", "event", "node", "source_failure")}
    for batch in machine.sent:
        assert sum(store.append(batch).values()) == 0
    assert all(store.read(name).equals(frame) for name, frame in before.items())
    machine.source.close()


def test_on_a_node_that_is_renamed_the_gpus_stay_the_same_ones(store: Store) -> None:
    old, new = Machine("n1", store, 0, 1), Machine("n1-new", store, 0, 1)
    old.turn()
    new.clock.move(timedelta(seconds=10))
    new.turn()
    assert store.read("gpu").sort("gpu").select("gpu", "uuid", "node").rows() == [
        (0, "GPU-0", "n1-new"),
        (1, "GPU-1", "n1-new"),
    ]
    assert store.read("gpu_sample").group_by("gpu").len().get_column("len").to_list() == [2, 2]
    assert set(store.read("node").get_column("node")) == {"n1", "n1-new"}
    assert store.read("event").is_empty()
    for machine in (old, new):
        machine.source.close()


def test_a_gpu_that_moves_to_another_node_takes_its_history_along(store: Store) -> None:
    left, right = Machine("n1", store, 0, 1), Machine("n2", store, 2)
    for machine in (left, right):
        machine.turn()
    left.gpus.remove(1)
    right.gpus.append(1)
    for _ in range(3):
        for machine in (right, left):  # whoever lost it speaks last
            machine.turn()
    gpus = {uuid: (node, key) for uuid, node, key in store.read("gpu").select("uuid", "node", "gpu").rows()}
    assert {uuid: node for uuid, (node, _) in gpus.items()} == {"GPU-0": "n1", "GPU-1": "n2", "GPU-2": "n2"}
    samples = store.read("gpu_sample")
    assert samples.filter(samples["gpu"] == gpus["GPU-1"][1]).height == 4
    events = store.read("event").select("node", "gpu_uuid", "kind").rows()
    assert events == [("n1", "GPU-1", "gpu_lost")]
    for machine in (left, right):
        machine.source.close()


def test_a_gpu_that_moved_away_and_comes_back_is_recovered_where_it_was(store: Store) -> None:
    left = Machine("n1", store, 0, 1)
    left.turn()
    left.gpus.remove(1)
    left.turn()
    left.gpus.append(1)
    for _ in range(3):
        left.turn()
    kinds = store.read("event").sort("ts").select("gpu_uuid", "kind").rows()
    assert kinds == [("GPU-1", "gpu_lost"), ("GPU-1", "gpu_recovered")]
    left.source.close()
