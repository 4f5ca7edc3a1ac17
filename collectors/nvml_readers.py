"""The samples of one GPU through pynvml: a table of readers, each of which may fail without the others.

A reader gives null where the driver gives a value that means "not available". Units are turned into ours here.
"""

import ctypes
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import pynvml

from collectors.nvml_device import Device, Handle
from collectors.nvml_rows import Row
from collectors.nvml_values import (
    Reader,
    all_supported,
    asking,
    field,
    first,
    known,
    link_states,
    number,
    one,
    ratio,
    read_memory,
)


def _read_utilization(device: Device) -> Row:
    rates = device.ask(pynvml.nvmlDeviceGetUtilizationRates)
    return {"utilization": ratio(rates.gpu), "memory_utilization": ratio(rates.memory)}


def _temperature(handle: Handle) -> int:
    return int(pynvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU))


def _temperature_before(handle: Handle) -> int:
    return int(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))


def _read_performance_state(device: Device) -> int | None:
    state = int(device.ask(pynvml.nvmlDeviceGetPerformanceState))
    return None if state == pynvml.NVML_PSTATE_UNKNOWN else state


def _read_clock_events(device: Device) -> int:
    new, old = pynvml.nvmlDeviceGetCurrentClocksEventReasons, pynvml.nvmlDeviceGetCurrentClocksThrottleReasons
    return int(first(device, new, old))


def _slowed(column: str, field_id: int) -> Reader:
    # The numbers 251 to 273 were dealt anew between drivers; of what stood there before, none is 64 bits wide.
    wide = pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
    return number(column, lambda device: device.field(field_id, wide), 1e9)


def _read_remapped(device: Device) -> Row:
    corrected, uncorrected, pending, failed = (known(part) for part in device.ask(pynvml.nvmlDeviceGetRemappedRows))
    return {
        "rows_remapped_corrected_count": corrected,
        "rows_remapped_uncorrected_count": uncorrected,
        "is_remap_pending": None if pending is None else pending != 0,
        "is_remap_failed": None if failed is None else failed != 0,
    }


def _sram_status(handle: Handle) -> pynvml.c_nvmlEccSramErrorStatus_v1_t:
    status = pynvml.c_nvmlEccSramErrorStatus_v1_t()
    pynvml.nvmlDeviceGetSramEccErrorStatus(handle, ctypes.byref(status))
    return status


def _read_sram(device: Device) -> Row:
    status = device.ask(_sram_status)
    kinds = [known(status.aggregateUncParity), known(status.aggregateUncSecDed)]
    counted = [count for count in kinds if count is not None]
    return {
        "is_sram_threshold_exceeded": bool(status.bThresholdExceeded),
        "ecc_sram_unique_uncorrected_lifetime_count": sum(counted) if counted else None,
    }


def _read_retired(device: Device) -> int:
    causes = (
        pynvml.NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS,
        pynvml.NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR,
    )
    return sum(len(device.ask(pynvml.nvmlDeviceGetRetiredPages, cause)) for cause in causes)


_LINK_ERROR_TOTALS = (
    pynvml.NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL,
    pynvml.NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL,
    pynvml.NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL,
    pynvml.NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL,
)
_LINK_ERRORS = (
    pynvml.NVML_NVLINK_ERROR_DL_REPLAY,
    pynvml.NVML_NVLINK_ERROR_DL_RECOVERY,
    pynvml.NVML_NVLINK_ERROR_DL_CRC_FLIT,
    pynvml.NVML_NVLINK_ERROR_DL_CRC_DATA,
)


def _read_links_up(device: Device) -> int | None:
    states = device.once(link_states)
    # A GPU without NVLink has no link that could be down: null, not zero.
    return sum(state == pynvml.NVML_FEATURE_ENABLED for state in states.values()) if states else None


def _read_link_errors(device: Device) -> int | None:
    totals = all_supported([partial(device.field, field_id) for field_id in _LINK_ERROR_TOTALS])
    if not totals:
        counters = [(link, kind) for link in device.once(link_states) for kind in _LINK_ERRORS]
        totals = all_supported(
            [partial(device.ask, pynvml.nvmlDeviceGetNvLinkErrorCounter, *counter) for counter in counters]
        )
    counted = [total for total in map(known, totals) if total is not None]
    return sum(counted) if counted else None


def _read_fabric_health(device: Device) -> int | None:
    return known(device.once(read_fabric).healthMask)


def read_fabric(device: Device) -> pynvml.c_nvmlGpuFabricInfo_v3_t:
    """Return the GPU's registration with the NVLink fabric, and the fabric's health as it sees it."""
    try:
        return device.ask(_fabric)
    except pynvml.NVMLError_ArgumentVersionMismatch:
        return device.ask(_fabric_before)


def _fabric(handle: Handle) -> pynvml.c_nvmlGpuFabricInfo_v3_t:
    info = pynvml.c_nvmlGpuFabricInfo_v3_t()
    pynvml.nvmlDeviceGetGpuFabricInfoV(handle, ctypes.byref(info))
    return info


def _fabric_before(handle: Handle) -> pynvml.c_nvmlGpuFabricInfo_v2_t:
    info = pynvml.c_nvmlGpuFabricInfo_v2_t()
    pynvml.nvmlDeviceGetGpuFabricInfoV(handle, ctypes.byref(info))
    return info


_CORRECTED, _UNCORRECTED = pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
_VOLATILE, _AGGREGATE = pynvml.NVML_VOLATILE_ECC, pynvml.NVML_AGGREGATE_ECC
_ECC_KINDS = (
    ("corrected", _CORRECTED, _VOLATILE), ("uncorrected", _UNCORRECTED, _VOLATILE),
    ("corrected_lifetime", _CORRECTED, _AGGREGATE), ("uncorrected_lifetime", _UNCORRECTED, _AGGREGATE),
)  # fmt: skip
_ECC_PLACES = (("dram", pynvml.NVML_MEMORY_LOCATION_DRAM), ("sram", pynvml.NVML_MEMORY_LOCATION_SRAM))


def _ecc_readers() -> dict[str, Reader]:
    total, at = pynvml.nvmlDeviceGetTotalEccErrors, pynvml.nvmlDeviceGetMemoryErrorCounter
    totals = {f"ecc_{name}": number(f"ecc_{name}_count", asking(total, kind, when)) for name, kind, when in _ECC_KINDS}
    return totals | {
        f"ecc_{where}_{name}": number(f"ecc_{where}_{name}_count", asking(at, kind, when, place))
        for where, place in _ECC_PLACES
        for name, kind, when in _ECC_KINDS
    }


# Every metric by its name in troubles; each may fail without the others.
SAMPLE_READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "utilization": _read_utilization,
        "memory": read_memory,
        "power": number("power_w", asking(pynvml.nvmlDeviceGetPowerUsage), 1000),
        "energy": number("energy_j", asking(pynvml.nvmlDeviceGetTotalEnergyConsumption), 1000),
        "temperature": number("temperature_c", lambda device: int(first(device, _temperature, _temperature_before))),
        "memory_temperature": field("memory_temperature_c", pynvml.NVML_FI_DEV_MEMORY_TEMP),
        "thermal_margin": one("thermal_margin_c", asking(pynvml.nvmlDeviceGetMarginTemperature)),
        "sm_clock": number("sm_clock_mhz", asking(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_SM)),
        "memory_clock": number("memory_clock_mhz", asking(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_MEM)),
        "performance_state": one("performance_state", _read_performance_state),
        "clock_events": number("clock_event_bits", _read_clock_events),
        "power_cap": _slowed("slowed_by_power_cap_s", pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP),
        "sync_boost": _slowed("slowed_by_sync_boost_s", pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_SYNC_BOOST),
        "software_thermal": _slowed(
            "slowed_by_software_thermal_s", pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN
        ),
        "hardware_thermal": _slowed(
            "slowed_by_hardware_thermal_s", pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN
        ),
        "power_brake": _slowed(
            "slowed_by_power_brake_s", pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN
        ),
        **_ecc_readers(),
        "remapped_rows": _read_remapped,
        "sram_status": _read_sram,
        "retired_pages": one("retired_page_count", _read_retired),
        "retirement_pending": one(
            "is_page_retirement_pending", lambda device: device.ask(pynvml.nvmlDeviceGetRetiredPagesPendingStatus) != 0
        ),
        "pcie_generation": number("pcie_generation", asking(pynvml.nvmlDeviceGetCurrPcieLinkGeneration)),
        "pcie_width": number("pcie_width", asking(pynvml.nvmlDeviceGetCurrPcieLinkWidth)),
        "pcie_replay": number("pcie_replay_count", asking(pynvml.nvmlDeviceGetPcieReplayCounter)),
        "nvlink_state": one("nvlink_active_count", _read_links_up),
        "nvlink_errors": one("nvlink_error_count", _read_link_errors),
        "fabric_health": one("fabric_health_bits", _read_fabric_health),
        "recovery_action": field("recovery_action", pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION),
    }
)
