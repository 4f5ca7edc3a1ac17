"""What the node source asks again and what it does not: each question costs the driver time."""

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterator
from ctypes import c_void_p, cast
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pynvml
import pytest

from collectors.nvml import NvmlSource
from fleet.batch import Batch
from fleet.clock import FixedClock

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
TICK = timedelta(seconds=10)


@pytest.fixture(autouse=True)
def _pynvml_count_untouched() -> Iterator[None]:
    before = pynvml._nvmlLib_refcount
    yield
    pynvml._nvmlLib_refcount = before  # what a test left open is closed here


def _sibling(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fake = _sibling("nvml_driver")
put, put_text, failing = fake.put, fake.put_text, fake.failing
# What cannot change while a driver is open, by the function that tells it, and how often one reading of one GPU asks.
LASTING = {
    "nvmlDeviceGetName": 1,
    "nvmlDeviceGetArchitecture": 1,
    "nvmlDeviceGetPciInfo_v3": 1,
    "nvmlDeviceGetSerial": 1,
    "nvmlDeviceGetVbiosVersion": 1,
    "nvmlDeviceGetBoardPartNumber": 1,
    "nvmlDeviceGetMinorNumber": 1,
    "nvmlDeviceGetMaxClockInfo": 2,
    "nvmlDeviceGetMaxPcieLinkGeneration": 1,
    "nvmlDeviceGetMaxPcieLinkWidth": 1,
}
FRESH = ["nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetMigMode", "nvmlDeviceGetGpuFabricInfoV"]
NOT_SUPPORTED, INVALID_ARGUMENT = pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_INVALID_ARGUMENT
MAY_PASS = {
    "no permission": pynvml.NVML_ERROR_NO_PERMISSION,
    "timeout": pynvml.NVML_ERROR_TIMEOUT,
    "unknown": pynvml.NVML_ERROR_UNKNOWN,
}


class Asked:
    """A source over a driver of ours whose questions are counted, read every ten seconds."""

    def __init__(self, *, gpu_count: int = 1, **functions: Callable[..., int]) -> None:
        self.driver = fake.FakeDriver(functions, gpu_count=gpu_count)
        self.clock, self.counts = FixedClock(NOW), Counter[str]()
        self.source = NvmlSource(self.clock, "c1", "n1", self)

    def __getattr__(self, name: str) -> Callable[..., int]:
        function = getattr(self.__dict__["driver"], name)

        def counted(*arguments: Any) -> int:
            self.counts[name] += 1
            return int(function(*arguments))

        return counted

    def put(self, **functions: Callable[..., int]) -> None:
        """Let the driver answer otherwise from now on."""
        self.driver.__dict__.update(functions)

    def read(self, after: timedelta = TICK) -> tuple[Counter[str], Batch]:
        """Return what a reading asked the driver, by function, and what it gave."""
        self.counts.clear()
        (batch,) = self.source.collect(None, self.clock.now())
        self.clock.move(after)
        return Counter(self.counts), batch

    def asks(self, function: str) -> int:
        """Return how often the next reading asks by this function."""
        return self.read()[0][function]


def column(batch: Batch, name: str) -> list[object]:
    return next(batch.frames[table][name].to_list() for table in ("gpu", "gpu_sample") if name in batch.frames[table])


def test_what_cannot_change_is_asked_once_and_goes_on_being_told() -> None:
    asked = Asked(gpu_count=2)
    first, told = asked.read()
    assert {name: first[name] for name in LASTING} == {name: 2 * count for name, count in LASTING.items()}
    again, told_again = asked.read()
    assert [name for name in LASTING if again[name]] == []
    assert told_again.frames["gpu"].drop("last_seen_at").equals(told.frames["gpu"].drop("last_seen_at"))


@pytest.mark.parametrize("function", FRESH)
def test_what_may_change_is_asked_at_every_reading_and_once(function: str) -> None:
    asked = Asked()
    assert [asked.asks(function) for _ in range(3)] == [1, 1, 1]


def test_what_cannot_change_is_asked_again_after_the_driver_was_opened_anew() -> None:
    asked = Asked()
    asked.read()
    asked.source.close()
    asked.put(nvmlDeviceGetVbiosVersion=put_text("97.00"))
    counts, batch = asked.read()
    assert {name: counts[name] for name in LASTING} == LASTING
    assert column(batch, "vbios") == ["97.00"]


def test_another_gpu_at_the_same_index_is_asked_what_it_is() -> None:
    asked = Asked()
    asked.read()
    asked.put(nvmlDeviceGetUUID=put_text("GPU-new"), nvmlDeviceGetSerial=put_text("166"))
    counts, batch = asked.read()
    assert counts["nvmlDeviceGetSerial"] == 1
    rows = batch.frames["gpu"].select("gpu_uuid", "serial").rows()
    assert ("GPU-new", "166") in rows


def test_a_gpu_that_came_back_is_asked_what_it_is() -> None:
    asked = Asked(gpu_count=2)
    asked.read()
    power = asked.driver.__dict__["nvmlDeviceGetPowerUsage"]

    def lose_second(handle: Any, out: Any) -> int:
        is_second = (cast(handle, c_void_p).value or 0) == 2
        return int(pynvml.NVML_ERROR_GPU_IS_LOST if is_second else power(handle, out))

    asked.put(nvmlDeviceGetPowerUsage=lose_second)
    _, batch = asked.read()
    assert batch.frames["event"]["kind"].to_list() == ["gpu_lost"]
    asked.put(nvmlDeviceGetPowerUsage=power, nvmlDeviceGetSerial=put_text("after"))
    _, batch = asked.read()
    assert column(batch, "serial")[1] == "after"


def test_a_gpu_that_was_reset_is_asked_what_it_is() -> None:
    asked = Asked()
    asked.read()
    asked.put(nvmlDeviceGetTotalEnergyConsumption=put(1000))
    _, batch = asked.read()
    assert batch.frames["event"]["kind"].to_list() == ["gpu_reset"]
    assert asked.asks("nvmlDeviceGetSerial") == 1
    assert asked.asks("nvmlDeviceGetSerial") == 0


def test_after_an_hour_all_is_asked_anew_whichever_way_the_clock_went() -> None:
    asked = Asked(nvmlDeviceGetRetiredPages=failing(NOT_SUPPORTED))
    for jump in (timedelta(hours=1), timedelta(hours=-2)):
        asked.read(after=jump)
        counts, _ = asked.read()
        assert (counts["nvmlDeviceGetSerial"], counts["nvmlDeviceGetRetiredPages"]) == (1, 1)
        assert asked.asks("nvmlDeviceGetSerial") == 0


@pytest.mark.parametrize("error", MAY_PASS)
@pytest.mark.parametrize(
    ("function", "good", "name"),
    [
        ("nvmlDeviceGetSerial", put_text("165"), "serial"),
        ("nvmlDeviceGetPowerUsage", put(70_000), "power_w"),
        ("nvmlDeviceGetFieldValues", fake.fields_with({}), "memory_temperature_c"),
    ],
)
def test_a_failure_that_may_pass_is_asked_again(function: str, good: Callable[..., int], name: str, error: str) -> None:
    asked = Asked(**{function: failing(MAY_PASS[error])})
    assert asked.asks(function) >= 1
    assert asked.asks(function) >= 1
    asked.put(**{function: good})
    assert column(asked.read()[1], name) != [None]


def test_a_text_that_is_blank_or_garbled_is_asked_again_until_it_is_told() -> None:
    asked = Asked(nvmlDeviceGetSerial=put_text(""), nvmlDeviceGetVbiosVersion=put_text(b"\xff"))
    asked.read()
    asked.put(nvmlDeviceGetSerial=put_text("165"), nvmlDeviceGetVbiosVersion=put_text("96"))
    _, batch = asked.read()
    assert column(batch, "serial") + column(batch, "vbios") == ["165", "96"]


@pytest.mark.parametrize("code", [NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND], ids=["supported", "found"])
@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("nvmlDeviceGetRetiredPages", "retired_page_count"),
        ("nvmlDeviceGetPcieReplayCounter", "pcie_replay_count"),
        ("nvmlDeviceGetFieldValues", "recovery_action"),
        ("nvmlDeviceGetBoardPartNumber", "board_part_number"),
        ("nvmlDeviceGetMarginTemperature", "thermal_margin_c"),
    ],
)
def test_a_function_that_the_gpu_does_not_have_is_asked_once_of_each_gpu(function: str, name: str, code: int) -> None:
    asked = Asked(gpu_count=2, **{function: failing(code)})
    assert asked.asks(function) == 2
    counts, batch = asked.read()
    assert (counts[function], column(batch, name), batch.troubles) == (0, [None, None], ())
    asked.source.close()
    assert asked.asks(function) == 2


def test_what_one_gpu_does_not_have_is_asked_of_the_other() -> None:
    def first_has_none(handle: Any, out: Any) -> int:
        return int(NOT_SUPPORTED if (cast(handle, c_void_p).value or 0) == 1 else put(9)(handle, out))

    asked = Asked(gpu_count=2, nvmlDeviceGetPcieReplayCounter=first_has_none)
    asked.read()
    counts, batch = asked.read()
    assert counts["nvmlDeviceGetPcieReplayCounter"] == 1
    assert column(batch, "pcie_replay_count") == [None, 9]


def test_what_a_gpu_does_not_have_is_asked_again_when_it_is_split() -> None:
    asked = Asked(nvmlDeviceGetUtilizationRates=failing(NOT_SUPPORTED), nvmlDeviceGetMaxMigDeviceCount=put(0))

    def split(_handle: Any, current: Any, _pending: Any) -> int:
        current._obj.value = 1
        return 0

    assert [asked.asks("nvmlDeviceGetUtilizationRates") for _ in range(2)] == [1, 0]
    asked.put(nvmlDeviceGetMigMode=split)
    assert [asked.asks("nvmlDeviceGetUtilizationRates") for _ in range(2)] == [1, 0]


@pytest.mark.parametrize("code", [NOT_SUPPORTED, INVALID_ARGUMENT], ids=["not supported", "invalid argument"])
def test_links_that_a_gpu_does_not_have_are_looked_for_once(code: int) -> None:
    no_totals = fake.fields_with(dict.fromkeys((91, 52, 59, 38, 45), code))
    asked = Asked(nvmlDeviceGetNvLinkState=failing(code), nvmlDeviceGetFieldValues=no_totals)
    counts, batch = asked.read()
    assert counts["nvmlDeviceGetNvLinkState"] == pynvml.NVML_NVLINK_MAX_LINKS
    assert asked.asks("nvmlDeviceGetNvLinkState") == 0
    assert column(batch, "nvlink_count") + column(batch, "nvlink_active_count") == [None, None]


def test_links_that_are_there_are_looked_at_once_a_reading() -> None:
    asked = Asked()
    asked.read()
    counts, batch = asked.read()
    assert counts["nvmlDeviceGetNvLinkState"] == 18  # the driver of these tests has 18, and says so of no more
    assert column(batch, "nvlink_active_count") == [17]


def test_the_field_values_of_a_reading_come_in_one_call() -> None:
    asked = Asked(gpu_count=2)
    assert [asked.asks("nvmlDeviceGetFieldValues") for _ in range(3)] == [2, 2, 2]


def test_a_field_that_the_gpu_does_not_have_is_left_out_of_the_next_call() -> None:
    questions: list[list[int]] = []
    give = fake.fields_with({82: NOT_SUPPORTED, 52: INVALID_ARGUMENT, 230: pynvml.NVML_ERROR_NO_PERMISSION})

    def note(handle: Any, count: Any, values: Any) -> int:
        questions.append([values._obj[index].fieldId for index in range(count.value)])
        return int(give(handle, count, values))

    asked = Asked(nvmlDeviceGetFieldValues=note)
    batches = [asked.read()[1] for _ in range(2)]
    assert {82, 52, 230, 91} <= set(questions[0])
    assert set(questions[0]) - set(questions[1]) == {82, 52, 91}  # 91 is how many links there are: told
    assert 230 in questions[1]
    for batch in batches:
        assert column(batch, "memory_temperature_c") + column(batch, "recovery_action") == [None, None]
        assert column(batch, "nvlink_error_count") == [2 + 3 + 4]
        assert column(batch, "slowed_by_power_brake_s") == [3.0]
    assert [[trouble.place for trouble in batch.troubles] for batch in batches] == [["n1, recovery_action"], []]
