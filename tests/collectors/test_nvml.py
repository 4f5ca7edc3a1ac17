"""The node source over a driver made by hand: every function may fail on its own, and none takes others with it."""

import importlib.util
from collections.abc import Callable, Iterator
from ctypes import c_void_p, cast
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pynvml
import pytest

from collectors.nvml import NvmlSource
from collectors.nvml_identity import IDENTITY_READERS
from collectors.nvml_readers import SAMPLE_READERS
from fleet.batch import Batch
from fleet.clock import FixedClock
from fleet.errors import SourceFailed, SourceUnavailable
from fleet.tables import GPU, GPU_SAMPLE

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
ERRORS = {
    "not supported": pynvml.NVML_ERROR_NOT_SUPPORTED,
    "no permission": pynvml.NVML_ERROR_NO_PERMISSION,
    "gpu is lost": pynvml.NVML_ERROR_GPU_IS_LOST,
    "function not found": pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    "unknown": pynvml.NVML_ERROR_UNKNOWN,
}


@pytest.fixture(autouse=True)
def _pynvml_untouched() -> Iterator[None]:
    before = (pynvml.nvmlLib, dict(pynvml._nvmlGetFunctionPointer_cache), pynvml._nvmlLib_refcount)
    yield
    after = (pynvml.nvmlLib, dict(pynvml._nvmlGetFunctionPointer_cache))
    # The count of open libraries is the library's own; what a test left open is closed here.
    pynvml._nvmlLib_refcount = before[2]
    assert after == before[:2]


def _sibling(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fake = _sibling("nvml_driver")
FakeDriver, DEVICE_FUNCTIONS, MIB = fake.FakeDriver, fake.DEVICE_FUNCTIONS, fake.MIB
put, put_text, put_fields, failing, fields_with = (
    fake.put,
    fake.put_text,
    fake.put_fields,
    fake.failing,
    fake.fields_with,
)
give_handle, give_uuid, give_processes = fake.give_handle, fake.give_uuid, fake.give_processes
# What each function feeds, written down by hand; the rest of a row has to survive its failure.
FEEDS: dict[str, set[str]] = {
    "nvmlDeviceGetName": {"model"},
    "nvmlDeviceGetArchitecture": {"architecture"},
    "nvmlDeviceGetPciInfo_v3": {"pci_bus_id"},
    "nvmlDeviceGetSerial": {"serial"},
    "nvmlDeviceGetVbiosVersion": {"vbios"},
    "nvmlDeviceGetBoardPartNumber": {"board_part_number"},
    "nvmlDeviceGetMinorNumber": {"minor_number"},
    "nvmlDeviceGetMaxClockInfo": {"sm_clock_max_mhz", "memory_clock_max_mhz"},
    "nvmlDeviceGetMaxPcieLinkGeneration": {"pcie_generation_max"},
    "nvmlDeviceGetMaxPcieLinkWidth": {"pcie_width_max"},
    "nvmlDeviceGetGpuFabricInfoV": {
        "fabric_state",
        "fabric_status",
        "fabric_cluster_uuid",
        "fabric_clique",
        "fabric_health_bits",
    },
    "nvmlDeviceGetPerformanceState": {"performance_state"},
    "nvmlDeviceGetMemoryErrorCounter": {
        f"ecc_{place}_{kind}{life}_count"
        for place in ("dram", "sram")
        for kind in ("corrected", "uncorrected")
        for life in ("", "_lifetime")
    },
    "nvmlDeviceGetEnforcedPowerLimit": {"power_limit_w"},
    "nvmlDeviceGetMigMode": {"mig_enabled"},
    "nvmlDeviceGetMemoryInfo_v2": {"memory_mib", "memory_used_mib", "memory_reserved_mib"},
    "nvmlDeviceGetUtilizationRates": {"utilization", "memory_utilization"},
    "nvmlDeviceGetPowerUsage": {"power_w"},
    "nvmlDeviceGetTotalEnergyConsumption": {"energy_j"},
    "nvmlDeviceGetTemperatureV": {"temperature_c"},
    "nvmlDeviceGetMarginTemperature": {"thermal_margin_c"},
    "nvmlDeviceGetClockInfo": {"sm_clock_mhz", "memory_clock_mhz"},
    "nvmlDeviceGetCurrentClocksEventReasons": {"clock_event_bits"},
    "nvmlDeviceGetTotalEccErrors": {
        "ecc_corrected_count",
        "ecc_uncorrected_count",
        "ecc_corrected_lifetime_count",
        "ecc_uncorrected_lifetime_count",
    },
    "nvmlDeviceGetRemappedRows": {
        "rows_remapped_corrected_count",
        "rows_remapped_uncorrected_count",
        "is_remap_pending",
        "is_remap_failed",
    },
    "nvmlDeviceGetSramEccErrorStatus": {
        "is_sram_threshold_exceeded",
        "ecc_sram_unique_uncorrected_lifetime_count",
    },
    "nvmlDeviceGetRetiredPages": {"retired_page_count"},
    "nvmlDeviceGetRetiredPagesPendingStatus": {"is_page_retirement_pending"},
    "nvmlDeviceGetCurrPcieLinkGeneration": {"pcie_generation"},
    "nvmlDeviceGetCurrPcieLinkWidth": {"pcie_width"},
    "nvmlDeviceGetPcieReplayCounter": {"pcie_replay_count"},
    "nvmlDeviceGetNvLinkState": {"nvlink_active_count"},
    "nvmlDeviceGetFieldValues": {
        "memory_temperature_c",
        "recovery_action",
        "nvlink_error_count",
        "nvlink_count",
        "slowed_by_power_cap_s",
        "slowed_by_sync_boost_s",
        "slowed_by_software_thermal_s",
        "slowed_by_hardware_thermal_s",
        "slowed_by_power_brake_s",
    },
    "nvmlDeviceGetComputeRunningProcesses_v3": {"process_count"},
}

# What is still known, by another function, where this one is not there.
OTHERWISE: dict[str, dict[str, object]] = {"nvmlDeviceGetFieldValues": {"nvlink_count": 18}}


def source_of(driver: object, clock: FixedClock | None = None) -> NvmlSource:
    return NvmlSource(clock or FixedClock(NOW), "c1", "n1", driver)


def collected(source: NvmlSource) -> Batch:
    (batch,) = source.collect(None, NOW)
    return batch.checked()


def row_of(batch: Batch) -> dict[str, object]:
    """Return GPU and sample of the only GPU as one row."""
    frames = batch.frames
    assert (frames["gpu"].height, frames["gpu_sample"].height) == (1, 1)
    return frames["gpu"].row(0, named=True) | frames["gpu_sample"].row(0, named=True)


def lost_uuids(batch: Batch) -> list[str | None]:
    events = batch.frames["event"]
    assert events["kind"].unique().to_list() in ([], ["gpu_lost"])
    return events["gpu_uuid"].to_list()


BASELINE: dict[str, object] = {
    "gpu_uuid": "GPU-0",
    "uuid": "GPU-0",
    "cluster": "c1",
    "node": "n1",
    "gpu_index": 0,
    "model": "NVIDIA H100",
    "architecture": "Hopper",
    "memory_mib": 81559,
    "power_limit_w": 700.0,
    "pci_bus_id": "00000000:53:00.0",
    "serial": "165",
    "vbios": "96.00",
    "board_part_number": "692-2G520",
    "minor_number": 4,
    "driver": "590.48",
    "mig_enabled": False,
    "sm_clock_max_mhz": 1980,
    "memory_clock_max_mhz": 2620,
    "pcie_generation_max": 5,
    "pcie_width_max": 16,
    "nvlink_count": 18,
    "fabric_state": "completed",
    "fabric_status": 0,
    "fabric_cluster_uuid": "00000000-0000-0000-0000-000000000007",
    "fabric_clique": 32,
    "first_seen_at": None,
    "last_seen_at": NOW,
    "ts": NOW,
    "utilization": 0.0,
    "memory_utilization": 0.25,
    "gr_activity": None,
    "sm_activity": None,
    "tensor_activity": None,
    "dram_activity": None,
    "memory_used_mib": 0,
    "memory_reserved_mib": 479,
    "power_w": pytest.approx(68.92),
    "energy_j": 9_000_000_000.123,
    "temperature_c": 29.0,
    "memory_temperature_c": 48.0,
    "thermal_margin_c": -3.0,
    "sm_clock_mhz": 1980,
    "memory_clock_mhz": 2619,
    "performance_state": 0,
    "clock_event_bits": 0x44,
    "slowed_by_power_cap_s": 7015.662857,
    "slowed_by_sync_boost_s": 0.0,
    "slowed_by_software_thermal_s": 1.5,
    "slowed_by_hardware_thermal_s": 2.0,
    "slowed_by_power_brake_s": 3.0,
    "ecc_corrected_count": 1,
    "ecc_uncorrected_count": 2,
    "ecc_corrected_lifetime_count": 11,
    "ecc_uncorrected_lifetime_count": 12,
    "ecc_dram_corrected_count": 201,
    "ecc_dram_uncorrected_count": 202,
    "ecc_dram_corrected_lifetime_count": 211,
    "ecc_dram_uncorrected_lifetime_count": 212,
    "ecc_sram_corrected_count": 701,
    "ecc_sram_uncorrected_count": 702,
    "ecc_sram_corrected_lifetime_count": 711,
    "ecc_sram_uncorrected_lifetime_count": 712,
    "ecc_sram_unique_uncorrected_lifetime_count": 7,
    "rows_remapped_corrected_count": 2,
    "rows_remapped_uncorrected_count": 1,
    "is_remap_pending": True,
    "is_remap_failed": False,
    "is_sram_threshold_exceeded": True,
    "retired_page_count": 3,
    "is_page_retirement_pending": True,
    "pcie_generation": 5,
    "pcie_width": 16,
    "pcie_replay_count": 9,
    "nvlink_active_count": 17,
    "nvlink_error_count": 10,
    "fabric_health_bits": 0x12,
    "recovery_action": 2,
    "process_count": 2,
}


def test_every_metric_reaches_its_column_in_its_unit() -> None:
    batch = collected(source_of(FakeDriver()))
    assert row_of(batch) == BASELINE
    assert batch.troubles == ()
    assert lost_uuids(batch) == []
    assert batch.read_until == NOW


def test_the_tables_of_this_file_name_every_function_and_column_that_is_read() -> None:
    columns = {*GPU.names("wire"), *GPU_SAMPLE.names("wire")}
    never_read = {"gr_activity", "sm_activity", "tensor_activity", "dram_activity", "first_seen_at"}
    known_otherwise = {"gpu_uuid", "uuid", "cluster", "node", "gpu_index", "driver", "last_seen_at", "ts"}
    assert set().union(*FEEDS.values()) == columns - never_read - known_otherwise
    assert FEEDS.keys() == DEVICE_FUNCTIONS.keys()
    assert len({*SAMPLE_READERS, *IDENTITY_READERS}) == len(SAMPLE_READERS) + len(IDENTITY_READERS)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("function", FEEDS)
def test_a_function_that_fails_takes_only_its_own_columns(function: str, error: str) -> None:
    batch = collected(source_of(FakeDriver({function: failing(ERRORS[error])})))

    is_lost, is_missing = error == "gpu is lost", error in {"not supported", "function not found"}
    otherwise = OTHERWISE.get(function, {}) if is_missing else {}
    expected = BASELINE | dict.fromkeys(FEEDS[function]) | otherwise | ({"last_seen_at": None} if is_lost else {})
    assert row_of(batch) == expected
    assert lost_uuids(batch) == (["GPU-0"] if is_lost else [])
    assert bool(batch.troubles) is not (is_missing or is_lost)
    assert all(trouble.kind == "failed" and trouble.row_count == 1 for trouble in batch.troubles)


@pytest.mark.parametrize("function", FEEDS)
def test_a_function_the_library_does_not_have_takes_only_its_own_columns(function: str) -> None:
    driver = FakeDriver()
    delattr(driver, function)
    batch = collected(source_of(driver))
    assert row_of(batch) == BASELINE | dict.fromkeys(FEEDS[function]) | OTHERWISE.get(function, {})
    assert batch.troubles == ()


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    ("field_id", "column"),
    [(82, "memory_temperature_c"), (230, "recovery_action")],
    ids=["memory temperature", "recovery action"],
)
def test_a_field_value_that_fails_takes_only_its_own_column(field_id: int, column: str, error: str) -> None:
    batch = collected(source_of(FakeDriver(nvmlDeviceGetFieldValues=fields_with({field_id: ERRORS[error]}))))
    is_lost = error == "gpu is lost"
    assert row_of(batch) == BASELINE | {column: None} | ({"last_seen_at": None} if is_lost else {})


BLANK_32, BLANK_64 = 2**32 - 1, 2**64 - 1


@pytest.mark.parametrize(
    ("function", "replacement", "column"),
    [
        ("nvmlDeviceGetPowerUsage", put(BLANK_32), "power_w"),
        ("nvmlDeviceGetTotalEnergyConsumption", put(BLANK_64), "energy_j"),
        ("nvmlDeviceGetCurrPcieLinkWidth", put(BLANK_32), "pcie_width"),
        ("nvmlDeviceGetMemoryInfo_v2", put_fields(total=81559 * MIB, reserved=479 * MIB, used=BLANK_64),
         "memory_used_mib"),
        ("nvmlDeviceGetUtilizationRates", put_fields(gpu=BLANK_32, memory=25), "utilization"),
        ("nvmlDeviceGetUtilizationRates", put_fields(gpu=101, memory=25), "utilization"),
        ("nvmlDeviceGetArchitecture", put(BLANK_32), "architecture"),
        ("nvmlDeviceGetCurrPcieLinkGeneration", put(2**31), "pcie_generation"),
        ("nvmlDeviceGetSerial", put_text(""), "serial"),
    ],
    ids=["power", "energy", "width", "memory", "utilization", "above the whole", "architecture", "garbage", "serial"],
)  # fmt: skip
def test_a_blank_or_impossible_number_is_null(function: str, replacement: Callable[..., int], column: str) -> None:
    assert row_of(collected(source_of(FakeDriver({function: replacement})))) == BASELINE | {column: None}


def test_text_that_is_no_text_is_null_and_told() -> None:
    batch = collected(source_of(FakeDriver(nvmlDeviceGetSerial=put_text(b"\xff\xfe"))))
    assert row_of(batch) == BASELINE | {"serial": None}
    assert [trouble.place for trouble in batch.troubles] == ["n1, serial"]


OLDER: dict[str, tuple[str, str, Callable[..., int], dict[str, object]]] = {
    "memory before R510": (
        "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMemoryInfo", put_fields(total=81559 * MIB, used=500 * MIB, free=0),
        {"memory_used_mib": 500, "memory_reserved_mib": None},
    ),
    "temperature": (
        "nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature", put(31), {"temperature_c": 31.0},
    ),
    "throttle reasons": (
        "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons", put(1),
        {"clock_event_bits": 1},
    ),
    "processes": (
        "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2", give_processes,
        {"process_count": 2},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OLDER)
def test_an_older_driver_is_asked_by_the_older_name(case: str) -> None:
    missing, older, function, columns = OLDER[case]
    driver = FakeDriver({older: function})
    delattr(driver, missing)
    assert row_of(collected(source_of(driver))) == BASELINE | columns


def test_link_errors_are_counted_link_by_link_where_there_are_no_totals() -> None:
    def give_error(_handle: Any, link: int, kind: int, out: Any) -> int:
        if link >= 2:
            return int(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        out._obj.value = 10 * link + kind
        return 0

    no_totals = fields_with(dict.fromkeys((52, 59, 38, 45), pynvml.NVML_ERROR_NOT_SUPPORTED))
    driver = FakeDriver(nvmlDeviceGetFieldValues=no_totals, nvmlDeviceGetNvLinkErrorCounter=give_error)
    assert row_of(collected(source_of(driver)))["nvlink_error_count"] == (0 + 1 + 2 + 3) + (10 + 11 + 12 + 13)


def test_links_that_are_all_down_are_zero_and_no_links_are_null() -> None:
    def answer(states: dict[str, Callable[..., int]]) -> object:
        return row_of(collected(source_of(FakeDriver(states))))["nvlink_active_count"]

    assert answer({"nvmlDeviceGetNvLinkState": put(0)}) == 0
    assert answer({"nvmlDeviceGetNvLinkState": failing(pynvml.NVML_ERROR_NOT_SUPPORTED)}) is None


def mig_driver(**functions: Callable[..., int]) -> Any:
    def mode(_handle: Any, current: Any, pending: Any) -> int:
        current._obj.value = pending._obj.value = 1
        return 0

    def handle_of(parent: Any, index: Any, out: Any) -> int:
        return int(pynvml.NVML_ERROR_NOT_FOUND if index.value == 1 else give_handle(parent, index, out))

    def name(handle: Any, buffer: Any, size: Any) -> int:
        is_slice = (cast(handle, c_void_p).value or 0) >= 100
        return int(put_text("NVIDIA H100 MIG 1c.3g.40gb" if is_slice else "NVIDIA H100")(handle, buffer, size))

    return FakeDriver(
        {
            "nvmlDeviceGetMigMode": mode,
            "nvmlDeviceGetMaxMigDeviceCount": put(3),
            "nvmlDeviceGetMigDeviceHandleByIndex": handle_of,
            "nvmlDeviceGetName": name,
            "nvmlDeviceGetGpuInstanceId": put(2),
            "nvmlDeviceGetComputeInstanceId": put(0),
            "nvmlDeviceGetAttributes_v2": put_fields(computeInstanceSliceCount=1, gpuInstanceSliceCount=3),
            "nvmlDeviceGetUtilizationRates": failing(pynvml.NVML_ERROR_NOT_SUPPORTED),
            **functions,
        }
    )


def test_mig_devices_are_slices_and_the_empty_place_between_them_is_none() -> None:
    batch = collected(source_of(mig_driver()))

    columns = ("slice_uuid", "gpu_uuid", "gpu_instance", "compute_instance", "profile", "compute_slices", "memory_mib")
    assert batch.frames["slice"].select(columns).rows() == [
        ("MIG-0", "GPU-0", 2, 0, "1c.3g.40gb", 1, 81559),
        ("MIG-2", "GPU-0", 2, 0, "1c.3g.40gb", 1, 81559),
    ]
    samples = batch.frames["slice_sample"].select("slice_uuid", "ts", "memory_used_mib", "process_count")
    assert samples.rows() == [("MIG-0", NOW, 0, 2), ("MIG-2", NOW, 0, 2)]
    assert (row_of(batch)["utilization"], row_of(batch)["mig_enabled"]) == (None, True)
    assert batch.troubles == ()


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    ("function", "column"),
    [
        ("nvmlDeviceGetGpuInstanceId", "gpu_instance"),
        ("nvmlDeviceGetComputeInstanceId", "compute_instance"),
        ("nvmlDeviceGetAttributes_v2", "compute_slices"),
    ],
)
def test_a_function_that_fails_on_a_mig_device_takes_only_its_column(function: str, column: str, error: str) -> None:
    whole = collected(source_of(mig_driver())).frames["slice"]
    found = collected(source_of(mig_driver(**{function: failing(ERRORS[error])}))).frames["slice"]
    assert found[column].to_list() == [None, None]
    assert found.drop(column).equals(whole.drop(column))


def test_a_gpu_that_is_lost_keeps_the_identity_it_had() -> None:
    def lose_second(index: Any, out: Any) -> int:
        return int(pynvml.NVML_ERROR_GPU_IS_LOST if index.value == 1 else give_handle(index, out))

    driver, clock = FakeDriver(gpu_count=3), FixedClock(NOW)
    source = source_of(driver, clock)
    before = collected(source).frames["gpu"]
    driver.__dict__["nvmlDeviceGetHandleByIndex_v2"] = lose_second
    clock.move(timedelta(minutes=1))
    batch = collected(source)

    assert lost_uuids(batch) == ["GPU-1"]
    assert batch.frames["event"]["pci_bus_id"].to_list() == ["00000000:53:00.0"]
    assert batch.frames["gpu"].drop("last_seen_at").equals(before.drop("last_seen_at"))
    assert batch.frames["gpu"]["last_seen_at"].to_list() == [clock.now(), None, clock.now()]
    assert batch.frames["gpu_sample"]["gpu_uuid"].to_list() == ["GPU-0", "GPU-2"]
    assert batch.frames["node"]["gpus"].to_list() == [3]


def test_a_gpu_that_is_lost_from_the_start_is_an_event_without_a_name() -> None:
    driver = FakeDriver(nvmlDeviceGetHandleByIndex_v2=failing(pynvml.NVML_ERROR_GPU_IS_LOST))
    batch = collected(source_of(driver))
    assert lost_uuids(batch) == [None]
    assert (batch.frames["gpu"].height, batch.frames["gpu_sample"].height) == (0, 0)


def test_a_gpu_that_the_driver_no_longer_lists_is_lost_and_comes_back() -> None:
    driver = FakeDriver(gpu_count=2)
    source = source_of(driver)
    collected(source)
    driver.__dict__["nvmlDeviceGetCount_v2"] = put(1)
    gone = collected(source)
    driver.__dict__["nvmlDeviceGetCount_v2"] = put(2)

    assert lost_uuids(gone) == ["GPU-1"]
    assert gone.frames["node"]["gpus"].to_list() == [2]
    assert gone.frames["gpu"]["gpu_uuid"].to_list() == ["GPU-0"]  # where the other one is now is not known
    assert collected(source).frames["event"].select("gpu_uuid", "kind").rows() == [("GPU-1", "gpu_recovered")]


def test_gpus_that_move_up_when_one_is_gone_keep_their_own_identity() -> None:
    def skip_first(handle: Any, buffer: Any, _size: Any) -> int:
        buffer.value = f"GPU-{cast(handle, c_void_p).value}".encode()
        return 0

    driver = FakeDriver(gpu_count=3)
    source = source_of(driver)
    collected(source)
    driver.__dict__.update(nvmlDeviceGetCount_v2=put(2), nvmlDeviceGetUUID=skip_first)

    for lost in (["GPU-0"], []):
        batch = collected(source)
        assert lost_uuids(batch) == lost
        assert batch.frames["gpu_sample"]["gpu_uuid"].to_list() == ["GPU-1", "GPU-2"]


def test_a_gpu_without_a_uuid_is_told_and_not_stored() -> None:
    batch = collected(source_of(FakeDriver(nvmlDeviceGetUUID=failing(pynvml.NVML_ERROR_NO_PERMISSION))))
    assert (batch.frames["gpu"].height, batch.frames["gpu_sample"].height) == (0, 0)
    assert {trouble.place for trouble in batch.troubles} == {"n1, uuid"}


def test_mig_devices_of_a_gpu_without_a_uuid_are_not_stored_without_their_gpu() -> None:
    def refuse_gpu(handle: Any, buffer: Any, size: Any) -> int:
        is_slice = (cast(handle, c_void_p).value or 0) >= 100
        return give_uuid(handle, buffer, size) if is_slice else int(pynvml.NVML_ERROR_NO_PERMISSION)

    frames = collected(source_of(mig_driver(nvmlDeviceGetUUID=refuse_gpu))).frames
    assert (frames["slice"].height, frames["slice_sample"].height) == (0, 0)


def test_a_lasting_trouble_is_told_once_and_again_after_it_was_over() -> None:
    driver = FakeDriver(gpu_count=2, nvmlDeviceGetSerial=failing(pynvml.NVML_ERROR_NO_PERMISSION))
    source = source_of(driver)
    assert [(trouble.place, trouble.row_count) for trouble in collected(source).troubles] == [("n1, serial", 2)]
    assert collected(source).troubles == ()
    driver.__dict__["nvmlDeviceGetSerial"] = put_text("165")
    assert collected(source).troubles == ()
    driver.__dict__["nvmlDeviceGetSerial"] = failing(pynvml.NVML_ERROR_NO_PERMISSION)
    assert len(collected(source).troubles) == 1


def test_a_clock_set_back_moves_the_samples_and_nothing_else() -> None:
    clock = FixedClock(NOW)
    source = source_of(FakeDriver(), clock)
    collected(source)
    clock.move(timedelta(hours=-1))
    batch = collected(source)
    assert batch.frames["gpu_sample"]["ts"].to_list() == [NOW - timedelta(hours=1)]
    assert batch.read_until == NOW - timedelta(hours=1)


def test_two_sources_read_their_own_drivers_in_turn() -> None:
    one, two = source_of(FakeDriver(gpu_count=1)), source_of(FakeDriver(gpu_count=2))
    assert [collected(source).frames["gpu"].height for source in (one, two, one)] == [1, 2, 1]


def test_a_node_without_gpus_is_whole_and_empty() -> None:
    batch = collected(source_of(FakeDriver(gpu_count=0)))
    assert batch.frames["node"].select("gpus", "model").rows() == [(0, None)]
    assert isinstance(batch.frames["gpu"], pl.DataFrame)
    assert batch.frames["gpu"].height == 0


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED])
def test_a_node_without_a_driver_says_what_to_do(code: int) -> None:
    with pytest.raises(SourceUnavailable, match="run this on a GPU node, or use --capture FILE"):
        collected(source_of(FakeDriver(nvmlInitWithFlags=failing(code))))


@pytest.mark.skipif(pynvml.nvmlLib is not None, reason="this machine has an NVIDIA driver")
def test_without_a_library_the_source_is_unavailable() -> None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        with pytest.raises(SourceUnavailable, match=r"no NVIDIA driver library \(libnvidia-ml.so.1\) here"):
            collected(NvmlSource(FixedClock(NOW), "c1", "n1"))
    else:
        pytest.skip("this machine has an NVIDIA driver")


@pytest.mark.parametrize(
    ("function", "code"),
    [
        ("nvmlInitWithFlags", pynvml.NVML_ERROR_UNKNOWN),
        ("nvmlDeviceGetCount_v2", pynvml.NVML_ERROR_UNINITIALIZED),
        ("nvmlDeviceGetCount_v2", pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH),
    ],
)
def test_a_driver_that_does_not_answer_is_a_failure_and_the_next_call_tries_again(function: str, code: int) -> None:
    driver = FakeDriver()
    good = driver.__dict__[function]
    driver.__dict__[function] = failing(code)
    source = source_of(driver)
    with pytest.raises(SourceFailed, match="node n1"):
        collected(source)
    driver.__dict__[function] = good
    assert row_of(collected(source)) == BASELINE
