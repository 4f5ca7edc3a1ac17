"""One device to ask: what cannot change is asked once, and what this device does not have is not asked again.

Each question costs CPU inside the driver, many as much as all of our own work. What is remembered is good while the
driver is open and the same GPU stands at the same place; after an hour all is asked anew, in case.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pynvml

from collectors.nvml_rows import Value
from fleet.clock import Clock

Handle = Any  # pynvml's handle, a pointer without a public type; it is not hashable
Answer = TypeVar("Answer")

# These answers stay the same while a driver is open; "no permission", "timeout" and "unknown" may pass.
_FOR_GOOD = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        pynvml.NVML_ERROR_DEPRECATED,
    }
)
_NUMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
_RENEW_AFTER = timedelta(hours=1)
# The field values that one reading asks for together.
FIELD_IDS = (
    pynvml.NVML_FI_DEV_MEMORY_TEMP,
    pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP,
    pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_SYNC_BOOST,
    pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN,
    pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN,
    pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN,
    pynvml.NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL,
    pynvml.NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL,
    pynvml.NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL,
    pynvml.NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL,
    pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,
)


class Device:
    """One GPU or MIG device behind its handle, from one reading to the next."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.lasting: dict[str, Mapping[str, Value]] = {}
        self._absent: dict[tuple[object, ...], int] = {}
        self._fields: dict[int, Any] | pynvml.NVMLError | None = None
        self._answers: dict[object, Any] = {}
        self._mig_enabled: Value = None

    def begin(self, handle: Handle) -> None:
        """Begin a reading: what was asked in the one before is asked anew."""
        self.handle, self._fields = handle, None
        self._answers.clear()

    def split(self, mig_enabled: Value) -> None:
        """Note whether the GPU is split into MIG devices: where that changed, what it has may be something else."""
        if mig_enabled is None:
            return
        if self._mig_enabled not in {None, mig_enabled}:
            self._absent.clear()
            self.lasting.clear()
        self._mig_enabled = mig_enabled

    def ask(self, function: Callable[..., Answer], *arguments: object) -> Answer:
        """Return what the driver's function gives for this device, or raise its `NVMLError`.

        A function that this device does not have, or not for these arguments, raises the same again unasked.
        """
        question = (function, *arguments)
        if question in self._absent:
            raise pynvml.NVMLError(self._absent[question])
        try:
            return function(self.handle, *arguments)
        except pynvml.NVMLError as error:
            self._note(question, error.value)
            raise

    def once(self, read: Callable[["Device"], Answer]) -> Answer:
        """Return what `read` gives, asked once in a reading; what it raises is raised every time."""
        if read not in self._answers:
            try:
                self._answers[read] = read(self)
            except pynvml.NVMLError as error:
                self._answers[read] = pynvml.NVMLError(error.value)
        answer = self._answers[read]
        if isinstance(answer, pynvml.NVMLError):
            raise pynvml.NVMLError(answer.value)
        return answer  # type: ignore[no-any-return]  # kept under the function that gave it

    def field(self, field_id: int, value_type: int | None = None) -> int:
        """Return one field value as a whole number, or raise the `NVMLError` that stands beside it.

        All of a reading come in one call. Some field numbers changed their meaning between drivers; where the
        `value_type` that ours has is given, a number of another type is not it.
        """
        question = ("field", field_id)
        if question in self._absent:
            raise pynvml.NVMLError(self._absent[question])
        value = self._field(field_id)
        code = value.nvmlReturn
        if code == pynvml.NVML_SUCCESS and value_type is not None and value.valueType != value_type:
            code = pynvml.NVML_ERROR_NOT_SUPPORTED
        if code != pynvml.NVML_SUCCESS:
            self._note(question, code)
            raise pynvml.NVMLError(code)
        return int(getattr(value.value, _NUMBERS[value.valueType]))

    def _field(self, field_id: int) -> Any:  # noqa: ANN401 - pynvml has no types
        fields = self._fields if self._fields is not None else self._ask_fields([field_id, *FIELD_IDS])
        if isinstance(fields, pynvml.NVMLError):
            raise pynvml.NVMLError(fields.value)
        if field_id not in fields:
            fields |= self._read_fields([field_id])
        return fields[field_id]

    def _ask_fields(self, field_ids: list[int]) -> "dict[int, Any] | pynvml.NVMLError":
        """Ask for the field values that this device may have, and keep them, or why there are none."""
        wanted = [each for each in dict.fromkeys(field_ids) if ("field", each) not in self._absent]
        try:
            self._fields = self._read_fields(wanted)
        except pynvml.NVMLError as error:
            self._fields = pynvml.NVMLError(error.value)  # a new one: it holds no frames
        return self._fields

    def _read_fields(self, field_ids: list[int]) -> dict[int, Any]:
        question = (pynvml.nvmlDeviceGetFieldValues,)
        if question in self._absent:
            raise pynvml.NVMLError(self._absent[question])
        try:
            values = pynvml.nvmlDeviceGetFieldValues(self.handle, field_ids)
        except pynvml.NVMLError as error:
            self._note(question, error.value)
            raise
        return dict(zip(field_ids, values, strict=True))

    def _note(self, question: tuple[object, ...], code: int) -> None:
        # With a link, a place or a field the argument may be what this device does not have; alone it is the handle.
        is_argument = code == pynvml.NVML_ERROR_INVALID_ARGUMENT and len(question) > 1
        if code in _FOR_GOOD or is_argument:
            self._absent[question] = code


class Devices:
    """The GPUs of a node by index, while the driver is open."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[int, tuple[str, datetime, Device]] = {}

    def at(self, index: int, uuid: str | None, handle: Handle) -> Device:
        """Return the GPU at this index with what is remembered of it: nothing where another one stood there."""
        if uuid is None:
            return Device(handle)
        now = self._clock.now()
        if index in self._known:
            known_uuid, since, device = self._known[index]
            if known_uuid == uuid and abs(now - since) < _RENEW_AFTER:
                device.begin(handle)
                return device
        device = Device(handle)
        self._known[index] = uuid, now, device
        return device

    def forget(self, uuids: Iterable[Value]) -> None:
        """Remember nothing of these GPUs: they were lost, came back, or were reset."""
        gone = set(uuids)
        self._known = {index: known for index, known in self._known.items() if known[0] not in gone}

    def close(self) -> None:
        """Remember nothing, before the driver is closed."""
        self._known.clear()
