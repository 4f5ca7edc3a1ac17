"""How a captured driver answers: NVML's return codes, and values written through the pointers a caller gives."""

import ctypes
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from collectors.capture_fields import Absence, Reading

CArgument = Any  # what ctypes hands to a function: byref() results, arrays and pointers share no public type
Function = Callable[..., int]


class Answer(IntEnum):
    """NVML return codes (nvml.h, nvmlReturn_t)."""

    SUCCESS = 0
    INVALID_ARGUMENT = 2
    NOT_SUPPORTED = 3
    NO_PERMISSION = 4
    NOT_FOUND = 6
    INSUFFICIENT_SIZE = 7
    FUNCTION_NOT_FOUND = 13
    GPU_IS_LOST = 15
    RESET_REQUIRED = 16
    UNKNOWN = 999


ANSWERS = {
    Absence.NOT_SUPPORTED: Answer.NOT_SUPPORTED,
    Absence.NO_PERMISSION: Answer.NO_PERMISSION,
    Absence.GPU_IS_LOST: Answer.GPU_IS_LOST,
    Absence.RESET_REQUIRED: Answer.RESET_REQUIRED,
    Absence.FUNCTION_NOT_FOUND: Answer.FUNCTION_NOT_FOUND,
    Absence.UNKNOWN: Answer.UNKNOWN,
}
BLANK_32, BLANK_64 = 2**32 - 1, 2**64 - 1  # NVML_VALUE_NOT_AVAILABLE


def number_of(handle: CArgument) -> int:
    """Return the number that a handle is."""
    return int(ctypes.cast(handle, ctypes.c_void_p).value or 0)


def write_handle(reference: CArgument, number: int) -> int:
    """Write the handle with that number where the caller wants it."""
    ctypes.cast(reference, ctypes.POINTER(ctypes.c_void_p))[0] = number
    return Answer.SUCCESS


def target(reference: CArgument) -> CArgument:
    """Return what a reference made by `byref` points to."""
    return reference._obj  # noqa: SLF001 - byref() keeps there what it points to, and has no other way to it


def write(reference: CArgument, value: Reading, factor: float = 1) -> int:
    """Write a number, `factor` times as much in the driver's unit; return why where there is none."""
    if isinstance(value, Absence):
        return ANSWERS[value]
    if isinstance(value, str):
        return Answer.UNKNOWN
    target(reference).value = round(value * factor)
    return Answer.SUCCESS


def write_text(buffer: CArgument, value: Reading | None) -> int:
    """Write a text, or return why there is none."""
    if not isinstance(value, str):
        return ANSWERS[value] if isinstance(value, Absence) else Answer.NOT_SUPPORTED
    encoded = value.encode()
    if len(encoded) >= len(buffer):
        return Answer.INSUFFICIENT_SIZE
    buffer.value = encoded
    return Answer.SUCCESS
