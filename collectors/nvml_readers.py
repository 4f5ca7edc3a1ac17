"""The metrics of one GPU through pynvml: a table of readers, each of which may fail without the others.

A reader is a function `handle -> columns`; it raises `NVMLError` where the driver does not give the metric, and
gives null where the driver gives a value that means "not available". Units are turned into ours here.
"""

import ctypes
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import pynvml

from collectors.nvml_rows import Row, Value

Handle = Any  # pynvml's handle, a pointer without a public type; it is not hashable
Reader = Callable[[Handle], Mapping[str, Value]]

_MIB = 2**20
NOT_THERE = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_NOT_FOUND,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    }
)
_ARCHITECTURES = MappingProxyType(
    {
        2: "Kepler", 3: "Maxwell", 4: "Pascal", 5: "Volta", 6: "Turing", 7: "Ampere", 8: "Ada Lovelace",
        9: "Hopper", 10: "Blackwell", 13: "Rubin",
    }
)  # fmt: skip


def _known(value: int) -> int | None:
    """Return a driver's number, or None where it is one of the values that mean "not available"."""
    if value == pynvml.NVML_VALUE_NOT_AVAILABLE_uint.value:
        return None
    return value if value < 2**63 else None


def _scaled(value: int, unit: float) -> float | None:
    known = _known(value)
    return None if known is None else known / unit


def _ratio(percent: int) -> float | None:
    # Some drivers give nonsense for a moment after a GPU wakes; more than the whole is not a measurement.
    return percent / 100 if percent <= 100 else None  # noqa: PLR2004 - the whole


def _mib(size_bytes: int) -> int | None:
    known = _known(size_bytes)
    return None if known is None else round(known / _MIB)


def _first(handle: Handle, *functions: Callable[[Handle], Any]) -> Any:  # noqa: ANN401 - pynvml has no types
    """Return the answer of the first function that this driver has; older drivers lack the newer ones."""
    for function in functions[:-1]:
        try:
            return function(handle)
        except pynvml.NVMLError as error:
            if error.value not in NOT_THERE:
                raise
    return functions[-1](handle)


def _field(handle: Handle, field_id: int) -> int:
    """Return one field value as a whole number, or raise the `NVMLError` that stands beside it."""
    value = pynvml.nvmlDeviceGetFieldValues(handle, [field_id])[0]
    if value.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(value.nvmlReturn)
    part = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")[value.valueType]
    return int(getattr(value.value, part))


def _memory_v2(handle: Handle) -> Any:  # noqa: ANN401 - pynvml has no types
    return pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)


def _read_memory(handle: Handle) -> Row:
    # Drivers before R510 count reserved memory as used and can't tell the two apart: reserved is null then.
    memory = _first(handle, _memory_v2, pynvml.nvmlDeviceGetMemoryInfo)
    reserved = getattr(memory, "reserved", None)
    return {
        "memory_used_mib": _mib(memory.used),
        "memory_reserved_mib": None if reserved is None else _mib(reserved),
    }


def _read_memory_total(handle: Handle) -> Row:
    return {"memory_mib": _mib(_first(handle, _memory_v2, pynvml.nvmlDeviceGetMemoryInfo).total)}


def _read_utilization(handle: Handle) -> Row:
    rates = pynvml.nvmlDeviceGetUtilizationRates(handle)
    return {"utilization": _ratio(rates.gpu), "memory_utilization": _ratio(rates.memory)}


def _read_temperature(handle: Handle) -> int:
    def new(handle: Handle) -> int:
        return int(pynvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU))

    def old(handle: Handle) -> int:
        return int(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))

    return int(_first(handle, new, old))


def _read_clock_events(handle: Handle) -> int:
    new, old = pynvml.nvmlDeviceGetCurrentClocksEventReasons, pynvml.nvmlDeviceGetCurrentClocksThrottleReasons
    return int(_first(handle, new, old))


def _read_process_count(handle: Handle) -> int:
    # The versioned names: the plain one answers a missing function with an exception of another tree.
    new, old = pynvml.nvmlDeviceGetComputeRunningProcesses_v3, pynvml.nvmlDeviceGetComputeRunningProcesses_v2
    return len(_first(handle, new, old))


def _read_remapped(handle: Handle) -> Row:
    corrected, uncorrected, pending, failed = (_known(part) for part in pynvml.nvmlDeviceGetRemappedRows(handle))
    return {
        "rows_remapped_corrected_count": corrected,
        "rows_remapped_uncorrected_count": uncorrected,
        "is_remap_pending": None if pending is None else pending != 0,
        "is_remap_failed": None if failed is None else failed != 0,
    }


def _read_sram(handle: Handle) -> bool:
    status = pynvml.c_nvmlEccSramErrorStatus_v1_t()
    pynvml.nvmlDeviceGetSramEccErrorStatus(handle, ctypes.byref(status))
    return bool(status.bThresholdExceeded)


def _read_retired(handle: Handle) -> int:
    causes = (
        pynvml.NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS,
        pynvml.NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR,
    )
    return sum(len(pynvml.nvmlDeviceGetRetiredPages(handle, cause)) for cause in causes)


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


def _supported(call: Callable[[], int]) -> int | None:
    """Return what the call gives, or None where this GPU has no such thing; other errors are raised."""
    try:
        return call()
    except pynvml.NVMLError as error:
        if error.value not in {*NOT_THERE, pynvml.NVML_ERROR_INVALID_ARGUMENT}:
            raise
        return None


def _all_supported(calls: Sequence[Callable[[], int]]) -> list[int]:
    return [answer for answer in map(_supported, calls) if answer is not None]


def _link_states(handle: Handle) -> dict[int, int]:
    """Return the state of each NVLink that this GPU has, by its number."""
    states = (
        (link, _supported(partial(pynvml.nvmlDeviceGetNvLinkState, handle, link)))
        for link in range(pynvml.NVML_NVLINK_MAX_LINKS)
    )
    return {link: state for link, state in states if state is not None}


def _read_links_up(handle: Handle) -> int | None:
    states = _link_states(handle)
    # A GPU without NVLink has no link that could be down: null, not zero.
    return sum(state == pynvml.NVML_FEATURE_ENABLED for state in states.values()) if states else None


def _read_link_errors(handle: Handle) -> int | None:
    totals = _all_supported([partial(_field, handle, field_id) for field_id in _LINK_ERROR_TOTALS])
    if not totals:
        counters = [(link, kind) for link in _link_states(handle) for kind in _LINK_ERRORS]
        totals = _all_supported(
            [partial(pynvml.nvmlDeviceGetNvLinkErrorCounter, handle, *counter) for counter in counters]
        )
    known = [total for total in map(_known, totals) if total is not None]
    return sum(known) if known else None


def _one(column: str, read: Callable[[Handle], Value]) -> Reader:
    return lambda handle: {column: read(handle)}


def _number(column: str, read: Callable[[Handle], int], unit: float | None = None) -> Reader:
    """Return a reader of one number: null where it is blank, divided by `unit` where one is given."""
    if unit is None:
        return lambda handle: {column: _known(read(handle))}
    return lambda handle: {column: _scaled(read(handle), unit)}


def _field_of(field_id: int) -> Callable[[Handle], int]:
    return lambda handle: _field(handle, field_id)


def _clock(kind: int) -> Callable[[Handle], int]:
    return lambda handle: int(pynvml.nvmlDeviceGetClockInfo(handle, kind))


def _ecc(kind: int, when: int) -> Callable[[Handle], int]:
    return lambda handle: int(pynvml.nvmlDeviceGetTotalEccErrors(handle, kind, when))


_CORRECTED, _UNCORRECTED = pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
_VOLATILE, _AGGREGATE = pynvml.NVML_VOLATILE_ECC, pynvml.NVML_AGGREGATE_ECC

# Every metric by its name in troubles; each may fail without the others.
SAMPLE_READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "utilization": _read_utilization,
        "memory": _read_memory,
        "power": _number("power_w", pynvml.nvmlDeviceGetPowerUsage, 1000),
        "energy": _number("energy_j", pynvml.nvmlDeviceGetTotalEnergyConsumption, 1000),
        "temperature": _number("temperature_c", _read_temperature),
        "memory_temperature": _number("memory_temperature_c", _field_of(pynvml.NVML_FI_DEV_MEMORY_TEMP)),
        "thermal_margin": _one("thermal_margin_c", pynvml.nvmlDeviceGetMarginTemperature),
        "sm_clock": _number("sm_clock_mhz", _clock(pynvml.NVML_CLOCK_SM)),
        "memory_clock": _number("memory_clock_mhz", _clock(pynvml.NVML_CLOCK_MEM)),
        "clock_events": _number("clock_event_bits", _read_clock_events),
        "ecc_corrected": _number("ecc_corrected_count", _ecc(_CORRECTED, _VOLATILE)),
        "ecc_uncorrected": _number("ecc_uncorrected_count", _ecc(_UNCORRECTED, _VOLATILE)),
        "ecc_corrected_lifetime": _number("ecc_corrected_lifetime_count", _ecc(_CORRECTED, _AGGREGATE)),
        "ecc_uncorrected_lifetime": _number("ecc_uncorrected_lifetime_count", _ecc(_UNCORRECTED, _AGGREGATE)),
        "remapped_rows": _read_remapped,
        "sram_status": _one("is_sram_threshold_exceeded", _read_sram),
        "retired_pages": _one("retired_page_count", _read_retired),
        "retirement_pending": _one(
            "is_page_retirement_pending", lambda handle: pynvml.nvmlDeviceGetRetiredPagesPendingStatus(handle) != 0
        ),
        "pcie_generation": _number("pcie_generation", pynvml.nvmlDeviceGetCurrPcieLinkGeneration),
        "pcie_width": _number("pcie_width", pynvml.nvmlDeviceGetCurrPcieLinkWidth),
        "pcie_replay": _number("pcie_replay_count", pynvml.nvmlDeviceGetPcieReplayCounter),
        "nvlink_state": _one("nvlink_active_count", _read_links_up),
        "nvlink_errors": _one("nvlink_error_count", _read_link_errors),
        "recovery_action": _number("recovery_action", _field_of(pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION)),
        "processes": _one("process_count", _read_process_count),
    }
)
IDENTITY_READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "name": _one("model", pynvml.nvmlDeviceGetName),
        "architecture": _one(
            "architecture", lambda handle: _ARCHITECTURES.get(pynvml.nvmlDeviceGetArchitecture(handle))
        ),
        "memory_total": _read_memory_total,
        "power_limit": _number("power_limit_w", pynvml.nvmlDeviceGetEnforcedPowerLimit, 1000),
        "pci": _one("pci_bus_id", lambda handle: pynvml.nvmlDeviceGetPciInfo(handle).busId or None),
        "serial": _one("serial", lambda handle: pynvml.nvmlDeviceGetSerial(handle) or None),
        "vbios": _one("vbios", lambda handle: pynvml.nvmlDeviceGetVbiosVersion(handle) or None),
        "mig_mode": _one(
            "mig_enabled", lambda handle: pynvml.nvmlDeviceGetMigMode(handle)[0] == pynvml.NVML_DEVICE_MIG_ENABLE
        ),
    }
)

_PROFILE = re.compile(r"\bMIG (\S+)$")


def _read_profile(handle: Handle) -> str | None:
    match = _PROFILE.search(pynvml.nvmlDeviceGetName(handle))
    return None if match is None else match[1]


SLICE_READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "gpu_instance": _number("gpu_instance", pynvml.nvmlDeviceGetGpuInstanceId),
        "compute_instance": _number("compute_instance", pynvml.nvmlDeviceGetComputeInstanceId),
        "profile": _one("profile", _read_profile),
        "compute_slices": _one(
            "compute_slices", lambda handle: pynvml.nvmlDeviceGetAttributes(handle).computeInstanceSliceCount
        ),
        "memory_total": _read_memory_total,
    }
)
SLICE_SAMPLE_READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "memory": lambda handle: {"memory_used_mib": _read_memory(handle)["memory_used_mib"]},
        "processes": SAMPLE_READERS["processes"],
    }
)
