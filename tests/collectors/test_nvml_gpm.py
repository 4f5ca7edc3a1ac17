"""Activity by GPM, and processes: what is between two looks, per instance, and who runs there."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from ctypes import c_void_p, cast
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import pynvml
import pytest

from collectors.nvml import NvmlSource
from collectors.nvml_rows import GpuProcess
from fleet.batch import Batch
from fleet.clock import FixedClock

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
PERCENT = {1: 100.4, 2: 62.5, 5: 0.0, 10: 12.5}
ACTIVITY = ("gr_activity", "sm_activity", "tensor_activity", "dram_activity")


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


class Gpm:
    """GPM of a driver: looks are numbered, kept until they are given back, and named by what they looked at."""

    def __init__(self, percent: dict[int, float] | None = None, is_supported: int = 1) -> None:
        self.percent, self.open, self.made = PERCENT if percent is None else percent, set[int](), 0
        self.looked: list[object] = []
        self.functions: dict[str, Callable[..., int]] = {
            "nvmlGpmQueryDeviceSupport": fake.put_fields(isSupportedDevice=is_supported),
            "nvmlGpmSampleAlloc": self._make,
            "nvmlGpmSampleFree": self._free,
            "nvmlGpmSampleGet": self._look,
            "nvmlGpmMigSampleGet": self._look_at_instance,
            "nvmlGpmMetricsGet": self._between,
        }

    def _make(self, out: Any) -> int:
        self.made += 1
        self.open.add(self.made)
        cast(out, fake.POINTER(c_void_p))[0] = self.made
        return 0

    def _free(self, look: Any) -> int:
        self.open.remove(cast(look, c_void_p).value or 0)
        return 0

    def _look(self, handle: Any, _look: Any) -> int:
        self.looked.append(cast(handle, c_void_p).value)
        return 0

    def _look_at_instance(self, handle: Any, instance: int, _look: Any) -> int:
        self.looked.append((cast(handle, c_void_p).value, instance))
        return 0

    def _between(self, out: Any) -> int:
        question = out._obj
        before, now = (cast(look, c_void_p).value or 0 for look in (question.sample1, question.sample2))
        assert before < now
        assert {before, now} <= self.open
        for slot in question.metrics[: question.numMetrics]:
            is_known = slot.metricId in self.percent
            slot.nvmlReturn = 0 if is_known else pynvml.NVML_ERROR_NOT_SUPPORTED
            slot.value = self.percent.get(slot.metricId, 0.0)
        return 0


def ticking(step_s: float = 1.0) -> Callable[[], float]:
    """Return a clock that moves by so many seconds at each look."""
    return partial(next, count(0.0, step_s))


def collected(source: NvmlSource) -> Batch:
    (batch,) = source.collect(None, NOW)
    return batch.checked()


def activity(batch: Batch, table: str = "gpu_sample") -> list[tuple[Any, ...]]:
    return batch.frames[table].select(ACTIVITY).rows()


def source_of(gpm: Gpm, gpu_count: int = 1, functions: Mapping[str, Callable[..., int]] | None = None) -> NvmlSource:
    driver = fake.FakeDriver({**gpm.functions, **(functions or {})}, gpu_count=gpu_count)
    return NvmlSource(FixedClock(NOW), "c1", "n1", driver, seconds=ticking())


def test_activity_is_the_mean_between_two_readings_and_null_before() -> None:
    gpm = Gpm()
    source = source_of(gpm, 2)
    assert activity(collected(source)) == [(None,) * 4] * 2
    assert activity(collected(source)) == [(1.0, 0.625, 0.0, 0.125)] * 2
    assert gpm.looked == [1, 2, 1, 2]
    assert len(gpm.open) == 2
    source.close()
    assert gpm.open == set()


def test_two_looks_too_close_together_tell_nothing_and_not_zero() -> None:
    gpm, moments = Gpm(), iter([0.0, 0.05, 0.12])
    driver = fake.FakeDriver(gpm.functions, gpu_count=1)
    source = NvmlSource(FixedClock(NOW), "c1", "n1", driver, seconds=lambda: next(moments))
    assert activity(collected(source)) == [(None,) * 4]
    assert activity(collected(source)) == [(None,) * 4]
    assert activity(collected(source)) == [(1.0, 0.625, 0.0, 0.125)]
    assert gpm.made == 2
    source.close()


@pytest.mark.parametrize(
    ("percent", "expected"),
    [
        ({1: 50.0, 2: float("nan"), 5: 400.0, 10: -1.0}, (0.5, None, None, None)),
        ({2: 10.0}, (None, pytest.approx(0.1), None, None)),
    ],
    ids=["impossible", "not supported"],
)
def test_a_number_that_is_no_share_is_null(percent: dict[int, float], expected: tuple[Any, ...]) -> None:
    source = source_of(Gpm(percent))
    collected(source)
    batch = collected(source)
    assert activity(batch) == [expected]
    assert batch.troubles == ()


def test_a_gpu_without_gpm_is_never_looked_at() -> None:
    gpm = Gpm(is_supported=0)
    source = source_of(gpm)
    for _ in range(2):
        assert activity(collected(source)) == [(None,) * 4]
    assert gpm.made == 0


@pytest.mark.parametrize("function", ["nvmlGpmSampleGet", "nvmlGpmMetricsGet"])
def test_a_look_that_fails_costs_one_interval_and_leaks_nothing(function: str) -> None:
    gpm = Gpm()
    driver = fake.FakeDriver(gpm.functions)
    source = NvmlSource(FixedClock(NOW), "c1", "n1", driver, seconds=ticking())
    collected(source)
    good = driver.__dict__[function]
    driver.__dict__[function] = fake.failing(pynvml.NVML_ERROR_UNKNOWN)
    batch = collected(source)
    assert activity(batch) == [(None,) * 4]
    assert [trouble.place for trouble in batch.troubles] == ["n1, activity"]
    driver.__dict__[function] = good
    collected(source)
    assert activity(collected(source))[0][0] == 1.0
    assert len(gpm.open) == 1


def mig_functions() -> dict[str, Callable[..., int]]:
    def mode(_handle: Any, current: Any, pending: Any) -> int:
        current._obj.value = pending._obj.value = 1
        return 0

    def instance(handle: Any, out: Any) -> int:
        out._obj.value = {100: 2, 101: 2, 102: 7}[cast(handle, c_void_p).value or 0]
        return 0

    return {
        "nvmlDeviceGetMigMode": mode,
        "nvmlDeviceGetMaxMigDeviceCount": fake.put(3),
        "nvmlDeviceGetMigDeviceHandleByIndex": fake.give_handle,
        "nvmlDeviceGetGpuInstanceId": instance,
        "nvmlDeviceGetComputeInstanceId": fake.put(0),
    }


def test_each_gpu_instance_is_looked_at_once_through_its_gpu() -> None:
    gpm = Gpm()
    refused = fake.failing(pynvml.NVML_ERROR_NOT_SUPPORTED)
    source = source_of(gpm, functions={**mig_functions(), "nvmlGpmSampleGet": refused})
    collected(source)
    batch = collected(source)
    assert gpm.looked == [(1, 2), (1, 7)] * 2
    assert activity(batch, "slice_sample") == [(1.0, 0.625, 0.0, 0.125)] * 3
    assert activity(batch) == [(None,) * 4]


def test_under_mig_the_whole_gpus_utilization_is_null_whatever_the_driver_says() -> None:
    source = source_of(
        Gpm(), functions={**mig_functions(), "nvmlDeviceGetUtilizationRates": fake.put_fields(gpu=0, memory=0)}
    )
    sample = collected(source).frames["gpu_sample"]
    assert sample.select("utilization", "memory_utilization").rows() == [(None, None)]


def listing(*processes: tuple[int, int | None, int, int]) -> Callable[..., int]:
    def give(_handle: Any, count: Any, slots: Any) -> int:
        count._obj.value = len(processes)
        if slots is None:
            return int(pynvml.NVML_ERROR_INSUFFICIENT_SIZE) if processes else 0
        for slot, (pid, mib, gpu_instance, compute_instance) in zip(slots, processes, strict=False):
            slot.pid, slot.gpuInstanceId, slot.computeInstanceId = pid, gpu_instance, compute_instance
            slot.usedGpuMemory = 2**64 - 1 if mib is None else mib * fake.MIB
        return 0

    return give


WHOLE = 2**32 - 1


def test_processes_are_told_once_with_all_they_do_and_memory_where_it_is_known() -> None:
    driver = fake.FakeDriver(
        nvmlDeviceGetComputeRunningProcesses_v3=listing((7, 300, WHOLE, WHOLE), (8, None, WHOLE, WHOLE)),
        nvmlDeviceGetGraphicsRunningProcesses_v3=listing((9, 0, WHOLE, WHOLE)),
        nvmlDeviceGetMPSComputeRunningProcesses_v3=listing((8, None, WHOLE, WHOLE)),
    )
    source = NvmlSource(FixedClock(NOW), "c1", "n1", driver, seconds=ticking())
    assert collected(source).frames["gpu_sample"]["process_count"].to_list() == [2]
    assert source.memory.processes == (
        GpuProcess("GPU-0", None, None, None, 7, "compute", 300),
        GpuProcess("GPU-0", None, None, None, 8, "compute+mps", None),
        GpuProcess("GPU-0", None, None, None, 9, "graphics", 0),
    )


def test_a_process_on_a_mig_device_stands_there_and_not_on_the_whole_gpu_too() -> None:
    def compute(handle: Any, count: Any, slots: Any) -> int:
        number = cast(handle, c_void_p).value or 0
        found = [(7, 20, 2, 0)] if number == 100 else [(7, 20, 2, 0), (8, 1, WHOLE, WHOLE)] if number < 100 else []
        return listing(*found)(handle, count, slots)

    driver = fake.FakeDriver(mig_functions(), nvmlDeviceGetComputeRunningProcesses_v3=compute)
    source = NvmlSource(FixedClock(NOW), "c1", "n1", driver, seconds=ticking())
    batch = collected(source)
    assert set(source.memory.processes) == {
        GpuProcess("GPU-0", "MIG-0", 2, 0, 7, "compute", 20),
        GpuProcess("GPU-0", None, None, None, 8, "compute", 1),
    }
    assert batch.frames["gpu_sample"]["process_count"].to_list() == [2]
    assert batch.frames["slice_sample"]["process_count"].to_list() == [1, 0, 0]


def test_where_processes_are_not_told_none_are_remembered_and_none_are_counted() -> None:
    driver = fake.FakeDriver(
        nvmlDeviceGetComputeRunningProcesses_v3=fake.failing(pynvml.NVML_ERROR_NO_PERMISSION),
    )
    source = NvmlSource(FixedClock(NOW), "c1", "n1", driver, seconds=ticking())
    assert collected(source).frames["gpu_sample"]["process_count"].to_list() == [None]
    assert source.memory.processes == ()
