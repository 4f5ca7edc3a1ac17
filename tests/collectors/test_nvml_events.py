"""What the driver tells by itself, and what is found out by comparing readings: each once, with its place."""

import importlib.util
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pynvml
import pytest

from collectors.nvml import NvmlSource
from collectors.nvml_changes import find_changes
from collectors.nvml_events import EVENT_KINDS, EventWatch
from collectors.nvml_rows import GpuReading, Place, Row
from fleet.batch import Batch
from fleet.clock import Clock, FixedClock

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
XID, DOUBLE_BIT, MIG = 0x8, 0x2, 0x100
WHOLE = 2**32 - 1


@pytest.fixture(autouse=True)
def _pynvml_untouched() -> Iterator[None]:
    before = (pynvml.nvmlLib, dict(pynvml._nvmlGetFunctionPointer_cache), pynvml._nvmlLib_refcount)
    yield
    pynvml._nvmlLib_refcount = before[2]
    assert (pynvml.nvmlLib, dict(pynvml._nvmlGetFunctionPointer_cache)) == before[:2]


def _sibling(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fake = _sibling("nvml_driver")


def quick(clock: Clock) -> EventWatch:
    return EventWatch(clock, capacity=8, wait_ms=5)


@pytest.fixture
def open_source() -> Iterator[Callable[[Any], NvmlSource]]:
    opened: list[NvmlSource] = []

    def open_one(driver: Any) -> NvmlSource:
        opened.append(NvmlSource(FixedClock(NOW), "c1", "n1", driver, make_watch=quick))
        return opened[-1]

    yield open_one
    for source in opened:
        source.close()


def collected(source: NvmlSource) -> Batch:
    (batch,) = source.collect(None, NOW)
    return batch.checked()


def events_of(driver: Any, source: NvmlSource) -> list[tuple[Any, ...]]:
    driver.told.join()
    columns = ("gpu_uuid", "slice_uuid", "kind", "code", "message")
    return collected(source).frames["event"].select(columns).rows()


def test_an_xid_is_a_row_with_its_gpu_and_number(open_source: Callable[[Any], NvmlSource]) -> None:
    driver = fake.ToldDriver(gpu_count=2)
    source = open_source(driver)
    collected(source)
    driver.tell(1, XID, 79)
    source_watch_idle(source)
    batch_events = events_of(driver, source)
    assert batch_events == [("GPU-1", None, "xid", 79, "xid 79")]
    assert events_of(driver, source) == []


def source_watch_idle(source: NvmlSource) -> None:
    """Wait until the watch has taken what was told: the driver's queue is joined before the row is kept."""
    watch = source._watch
    assert watch is not None
    for _ in range(2000):
        if not watch._queue.empty() or watch.ended is not None:
            return
        assert watch._thread is not None
        watch._thread.join(0.001)
    pytest.fail("the watch has taken nothing")


@pytest.mark.parametrize(("bit", "kind"), EVENT_KINDS.items(), ids=EVENT_KINDS.values())
def test_each_kind_has_its_name_and_only_numbers_that_mean_something(
    bit: int, kind: str, open_source: Callable[[Any], NvmlSource]
) -> None:
    driver = fake.ToldDriver()
    source = open_source(driver)
    collected(source)
    driver.tell(0, bit, 3)
    source_watch_idle(source)
    ((uuid, _, found, code, _),) = events_of(driver, source)
    assert (uuid, found, code) == ("GPU-0", kind, 3 if kind in {"xid", "recovery_action"} else None)


def test_kinds_that_are_not_offered_or_are_refused_take_no_other_with_them() -> None:
    driver = fake.ToldDriver(supported=XID | DOUBLE_BIT | MIG | 0x4, refused=DOUBLE_BIT)
    source = NvmlSource(FixedClock(NOW), "c1", "n1", driver, make_watch=quick)
    assert collected(source).troubles == ()
    watch = source._watch
    assert watch is not None
    assert sorted(driver.registered) == [(1, XID), (1, MIG)]
    assert {"xid", "mig_config"}.isdisjoint(watch.left_out)
    assert "ecc_double_bit" in watch.left_out
    source.close()
    assert driver.sets_open == 0
    assert watch._thread is not None
    assert not watch._thread.is_alive()


def test_a_storm_keeps_the_first_events_and_counts_the_rest(open_source: Callable[[Any], NvmlSource]) -> None:
    driver = fake.ToldDriver()
    source = open_source(driver)
    collected(source)
    for code in range(1, 21):
        driver.tell(0, XID, code)
    driver.told.put(int(pynvml.NVML_ERROR_UNKNOWN))  # its last word: then all the others have been kept or counted
    watch = source._watch
    assert watch is not None
    assert watch._thread is not None
    watch._thread.join()
    batch = collected(source)
    assert batch.frames["event"]["code"].to_list() == list(range(1, 9))
    assert [(trouble.kind, trouble.place, trouble.row_count) for trouble in batch.troubles] == [
        ("rejected", "n1, events", 12),
        ("failed", "n1, events", 0),
    ]


def test_a_watch_that_ended_is_told_once_and_starts_anew(open_source: Callable[[Any], NvmlSource]) -> None:
    driver = fake.ToldDriver()
    source = open_source(driver)
    collected(source)
    driver.told.put(int(pynvml.NVML_ERROR_GPU_IS_LOST))
    source_watch_idle(source)
    assert [trouble.place for trouble in collected(source).troubles] == ["n1, events"]
    assert collected(source).troubles == ()
    driver.tell(0, XID, 31)
    source_watch_idle(source)
    assert [row[3] for row in events_of(driver, source)] == [31]
    assert driver.sets_open == 1


@pytest.mark.parametrize(
    ("instances", "slice_uuid", "words"),
    [
        ((2, 0), "MIG-0", "xid 43, GPU instance 2, compute instance 0"),
        ((2, WHOLE), "MIG-0", "xid 43, GPU instance 2"),
        ((5, 0), None, "xid 43, GPU instance 5, compute instance 0"),
        ((WHOLE, WHOLE), None, "xid 43"),
    ],
    ids=["compute instance", "GPU instance", "unknown instance", "whole GPU"],
)
def test_an_event_of_an_instance_finds_its_mig_device(
    instances: tuple[int, int], slice_uuid: str | None, words: str, open_source: Callable[[Any], NvmlSource]
) -> None:
    def mode(_handle: Any, current: Any, pending: Any) -> int:
        current._obj.value = pending._obj.value = 1
        return 0

    driver = fake.ToldDriver(
        nvmlDeviceGetMigMode=mode,
        nvmlDeviceGetMaxMigDeviceCount=fake.put(1),
        nvmlDeviceGetMigDeviceHandleByIndex=fake.give_handle,
        nvmlDeviceGetGpuInstanceId=fake.put(2),
        nvmlDeviceGetComputeInstanceId=fake.put(0),
    )
    source = open_source(driver)
    collected(source)
    driver.tell(0, XID, 43, instances)
    source_watch_idle(source)
    assert events_of(driver, source) == [("GPU-0", slice_uuid, "xid", 43, words)]


def test_an_event_of_an_unknown_gpu_is_kept_without_one(open_source: Callable[[Any], NvmlSource]) -> None:
    driver = fake.ToldDriver()
    source = open_source(driver)
    collected(source)
    driver.tell(6, XID, 79)
    source_watch_idle(source)
    assert events_of(driver, source) == [(None, None, "xid", 79, "xid 79")]


def test_a_driver_without_events_is_read_all_the_same() -> None:
    source = NvmlSource(FixedClock(NOW), "c1", "n1", fake.FakeDriver(), make_watch=quick)
    assert collected(source).troubles == ()
    assert collected(source).frames["gpu_sample"].height == 1


def losing(index: int) -> Callable[..., int]:
    def give(asked: Any, out: Any) -> int:
        return int(pynvml.NVML_ERROR_GPU_IS_LOST if asked.value == index else fake.give_handle(asked, out))

    return give


def kinds(batch: Batch) -> list[tuple[Any, ...]]:
    return batch.frames["event"].select("gpu_uuid", "kind").rows()


def test_a_lost_gpu_is_told_once_and_once_more_when_it_is_back() -> None:
    driver = fake.FakeDriver(gpu_count=2)
    source = NvmlSource(FixedClock(NOW), "c1", "n1", driver)
    told = [kinds(collected(source))]
    driver.__dict__["nvmlDeviceGetHandleByIndex_v2"] = losing(1)
    told += [kinds(collected(source)) for _ in range(3)]
    driver.__dict__["nvmlDeviceGetHandleByIndex_v2"] = fake.give_handle
    told += [kinds(collected(source)) for _ in range(2)]
    assert told == [[], [("GPU-1", "gpu_lost")], [], [], [("GPU-1", "gpu_recovered")], []]


def test_the_driver_is_opened_anew_less_and_less_often_while_a_gpu_is_lost() -> None:
    opened: list[int] = []

    def start(flags: int) -> int:
        opened.append(flags)
        return 0

    driver = fake.FakeDriver(
        gpu_count=2,
        nvmlInitWithFlags=start,
        nvmlDeviceGetHandleByIndex_v2=losing(1),
    )
    source = NvmlSource(FixedClock(NOW), "c1", "n1", driver)
    counts = []
    for _ in range(16):
        collected(source)
        counts.append(len(opened))
    assert counts == [1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 5]


def test_a_source_that_starts_with_a_memory_tells_nothing_twice() -> None:
    driver = fake.FakeDriver(gpu_count=2)
    first = NvmlSource(FixedClock(NOW), "c1", "n1", driver)
    collected(first)
    driver.__dict__["nvmlDeviceGetHandleByIndex_v2"] = losing(1)
    collected(first)
    second = NvmlSource(FixedClock(NOW), "c1", "n1", driver)
    second.memory = first.memory
    batch = collected(second)
    assert kinds(batch) == []
    assert batch.frames["gpu"]["gpu_uuid"].to_list() == ["GPU-0", "GPU-1"]


def test_a_gpu_that_is_skipped_is_neither_touched_nor_lost_nor_forgotten() -> None:
    asked: list[int] = []

    def give(index: Any, out: Any) -> int:
        asked.append(index.value)
        return int(fake.give_handle(index, out))

    driver = fake.FakeDriver(gpu_count=3, nvmlDeviceGetHandleByIndex_v2=give)
    source = NvmlSource(FixedClock(NOW), "c1", "n1", driver)
    collected(source)
    asked.clear()
    source.skip = frozenset({1})
    batch = collected(source)
    assert asked == [0, 2]
    assert kinds(batch) == []
    assert batch.frames["gpu"]["last_seen_at"].to_list() == [NOW, None, NOW]
    assert batch.frames["gpu_sample"]["gpu_uuid"].to_list() == ["GPU-0", "GPU-2"]


PLACE = Place("c1", "n1", NOW + timedelta(seconds=10), "nvml")
BEFORE: Row = {"energy_j": 5e6, "pcie_replay_count": 9, "ecc_corrected_count": 4, "ecc_uncorrected_count": 0, "ts": NOW}


@pytest.mark.parametrize(
    ("now", "is_reset"),
    [
        ({"energy_j": 5e6 + 7000, "pcie_replay_count": 9, "ecc_corrected_count": 4}, False),
        ({"energy_j": 900.0, "pcie_replay_count": 0, "ecc_corrected_count": 0}, True),
        ({"energy_j": 0.0}, True),
        ({"energy_j": 4_999_000.0}, False),
        ({"energy_j": None, "pcie_replay_count": 0}, True),
        ({"energy_j": 5e6 + 7000, "ecc_corrected_count": 0}, False),
        ({}, False),
        ({"energy_j": float("nan")}, False),
    ],
    ids=["goes on", "all anew", "zero", "energy jumps back a little", "replays only", "errors cleared by hand",
         "nothing measured", "NaN"],
)  # fmt: skip
def test_counters_that_begin_anew_are_a_reset(now: dict[str, float | int | None], is_reset: bool) -> None:  # noqa: FBT001 - a table's column
    gpu = GpuReading(0, "GPU-0", {}, now)
    rows, _, counters = find_changes(PLACE, [gpu], frozenset(), {"GPU-0": dict(BEFORE)})
    assert [row["kind"] for row in rows] == (["gpu_reset"] if is_reset else [])
    assert counters["GPU-0"]["ts"] == PLACE.now
    again, _, _ = find_changes(PLACE, [gpu], frozenset(), counters)
    assert again == []


def test_a_gpu_lost_before_it_had_a_name_recovers_by_its_index() -> None:
    lost = GpuReading(3, None, {}, {}, lost="GPU is lost", is_seen=False)
    rows, known_lost, _ = find_changes(PLACE, [lost], frozenset(), {})
    again, known_lost, _ = find_changes(PLACE, [lost], known_lost, {})
    back, known_lost, _ = find_changes(PLACE, [GpuReading(3, "GPU-c", {}, {})], known_lost, {})
    assert [[(row["gpu_uuid"], row["kind"]) for row in told] for told in (rows, again, back)] == [
        [(None, "gpu_lost")],
        [],
        [("GPU-c", "gpu_recovered")],
    ]
    assert known_lost == frozenset()
