"""What readers of NVML share: which errors are usual, which numbers mean "not available", and units.

A reader is a function `device -> columns`; it raises `NVMLError` where the driver does not give the metric.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import pynvml

from collectors.nvml_device import Device, Handle
from collectors.nvml_rows import Row, Value

Reader = Callable[[Device], Mapping[str, Value]]
Answer = TypeVar("Answer")

_MIB = 2**20
NOT_THERE = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_NOT_FOUND,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        pynvml.NVML_ERROR_DEPRECATED,
    }
)


def known(value: int) -> int | None:
    """Return a driver's number, or None where it is one of the values that mean "not available"."""
    if value == pynvml.NVML_VALUE_NOT_AVAILABLE_uint.value:
        return None
    return value if value < 2**63 else None


def scaled(value: int, unit: float) -> float | None:
    """Return a driver's number in a unit that is `unit` times the driver's, None where it is not available."""
    counted = known(value)
    return None if counted is None else counted / unit


def ratio(percent: float) -> float | None:
    """Return a share of the whole of a percentage, None for more than the whole or NaN."""
    # Some drivers give nonsense for a moment after a GPU wakes; more than the whole is not a measurement.
    return percent / 100 if 0 <= percent <= 100 else None  # noqa: PLR2004 - the whole


def mib(size_bytes: int) -> int | None:
    """Return a size in MiB, None where it is not available."""
    size = known(size_bytes)
    return None if size is None else round(size / _MIB)


def first(device: Device, *functions: Callable[[Handle], Any]) -> Any:  # noqa: ANN401 - pynvml has no types
    """Return the answer of the first function that this driver has; older drivers lack the newer ones."""
    for function in functions[:-1]:
        try:
            return device.ask(function)
        except pynvml.NVMLError as error:
            if error.value not in NOT_THERE:
                raise
    return device.ask(functions[-1])


def memory(device: Device) -> Any:  # noqa: ANN401 - pynvml has no types
    """Return the frame buffer's use, with reserved memory apart where the driver (R510 and later) tells it."""
    return first(device, _memory_v2, pynvml.nvmlDeviceGetMemoryInfo)


def _memory_v2(handle: Handle) -> Any:  # noqa: ANN401 - pynvml has no types
    return pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)


def supported(call: Callable[[], Answer]) -> Answer | None:
    """Return what the call gives, or None where this GPU has no such thing; other errors are raised."""
    try:
        return call()
    except pynvml.NVMLError as error:
        if error.value not in {*NOT_THERE, pynvml.NVML_ERROR_INVALID_ARGUMENT}:
            raise
        return None


def all_supported(calls: Sequence[Callable[[], int]]) -> list[int]:
    """Return what those calls give whose thing this GPU has."""
    return [answer for answer in map(supported, calls) if answer is not None]


def link_states(device: Device) -> dict[int, int]:
    """Return the state of each NVLink that this GPU has, by its number."""
    states = (
        (link, supported(partial(device.ask, pynvml.nvmlDeviceGetNvLinkState, link)))
        for link in range(pynvml.NVML_NVLINK_MAX_LINKS)
    )
    return {link: state for link, state in states if state is not None}


def one(column: str, read: Callable[[Device], Value]) -> Reader:
    """Return a reader of one column."""
    return lambda device: {column: read(device)}


def number(column: str, read: Callable[[Device], int], unit: float | None = None) -> Reader:
    """Return a reader of one number: null where it is blank, divided by `unit` where one is given."""
    if unit is None:
        return lambda device: {column: known(read(device))}
    return lambda device: {column: scaled(read(device), unit)}


def asking(function: Callable[..., Any], *arguments: int) -> Callable[[Device], Any]:
    """Return what asks a device by one of the driver's functions."""
    return lambda device: device.ask(function, *arguments)


def field(column: str, field_id: int) -> Reader:
    """Return a reader of one number that is a field value."""
    return number(column, lambda device: device.field(field_id))


def read_memory(device: Device) -> Row:
    """Return the use of the frame buffer; before R510 reserved memory is counted as used, and null."""
    use = device.once(memory)
    reserved = getattr(use, "reserved", None)
    return {"memory_used_mib": mib(use.used), "memory_reserved_mib": None if reserved is None else mib(reserved)}


def read_memory_total(device: Device) -> Row:
    """Return the size of the frame buffer."""
    return {"memory_mib": mib(device.once(memory).total)}
