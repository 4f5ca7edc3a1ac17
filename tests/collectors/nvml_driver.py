"""A driver made by hand: the NVML functions as plain attributes, which write through the pointers they are given."""

import queue
from collections.abc import Callable, Mapping
from ctypes import POINTER, c_void_p, cast
from typing import Any

import pynvml

MIB = 2**20


def put(value: float) -> Callable[..., int]:
    def write(*arguments: Any) -> int:
        arguments[-1]._obj.value = value
        return 0

    return write


def put_text(text: str | bytes) -> Callable[..., int]:
    def write(_handle: Any, buffer: Any, _size: Any) -> int:
        buffer.value = text if isinstance(text, bytes) else text.encode()
        return 0

    return write


def put_fields(**values: Any) -> Callable[..., int]:
    def write(_handle: Any, out: Any) -> int:
        for name, value in values.items():
            setattr(out._obj, name, value)
        return 0

    return write


def give_handle(*arguments: Any) -> int:
    index, out = arguments[-2], arguments[-1]
    cast(out, POINTER(c_void_p))[0] = index.value + 1 if len(arguments) == 2 else index.value + 100
    return 0


def give_uuid(handle: Any, buffer: Any, _size: Any) -> int:
    number = cast(handle, c_void_p).value or 0
    buffer.value = (f"GPU-{number - 1}" if number < 100 else f"MIG-{number - 100}").encode()
    return 0


def give_clock(_handle: Any, kind: Any, out: Any) -> int:
    out._obj.value = {1: 1980, 2: 2619}[kind.value]
    return 0


def give_ecc(_handle: Any, kind: Any, when: Any, out: Any) -> int:
    out._obj.value = 10 * when.value + kind.value + 1
    return 0


def give_ecc_at(_handle: Any, kind: Any, when: Any, place: Any, out: Any) -> int:
    out._obj.value = 100 * place.value + 10 * when.value + kind.value + 1
    return 0


def give_fabric(_handle: Any, out: Any) -> int:
    info = out._obj
    if isinstance(info, pynvml.c_nvmlGpuFabricInfo_v3_t):
        info.healthSummary = 1
    info.clusterUuid[15], info.cliqueId, info.state, info.status, info.healthMask = 7, 32, 3, 0, 0x12
    return 0


def give_max_clock(_handle: Any, kind: Any, out: Any) -> int:
    out._obj.value = {1: 1980, 2: 2620}[kind.value]
    return 0


def give_remapped(_handle: Any, *outs: Any) -> int:
    for out, value in zip(outs, (2, 1, 1, 0), strict=True):
        out._obj.value = value
    return 0


def give_retired(_handle: Any, cause: Any, count: Any, pages: Any) -> int:
    count._obj.value = 3 if cause.value == 0 else 0
    return pynvml.NVML_ERROR_INSUFFICIENT_SIZE if pages is None else 0


def give_link(_handle: Any, link: int, out: Any) -> int:
    if link >= 18:
        return int(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    out._obj.value = link != 5
    return 0


def give_processes(_handle: Any, count: Any, slots: Any) -> int:
    count._obj.value = 2
    return pynvml.NVML_ERROR_INSUFFICIENT_SIZE if slots is None else 0


def give_mig_mode(_handle: Any, current: Any, pending: Any) -> int:
    current._obj.value, pending._obj.value = 0, 0
    return 0


FIELDS = {82: 48, 230: 2, 52: 1, 59: 2, 38: 3, 45: 4, 91: 18}
SLOWED_NS = {74: 7_015_662_857_000, 76: 0, 269: 1_500_000_000, 270: 2_000_000_000, 271: 3_000_000_000}


def fields_with(errors: dict[int, int], value_type: int | None = None) -> Callable[..., int]:
    known = FIELDS | SLOWED_NS

    def write(_handle: Any, count: Any, values: Any) -> int:
        for index in range(count.value):
            slot = values._obj[index]
            slot.nvmlReturn = errors.get(slot.fieldId, 0)
            slot.valueType, slot.value.ullVal = pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, known[slot.fieldId]
            if value_type is not None:
                slot.valueType = value_type
        return 0

    return write


DEVICE_FUNCTIONS: dict[str, Callable[..., int]] = {
    "nvmlDeviceGetName": put_text("NVIDIA H100"),
    "nvmlDeviceGetArchitecture": put(9),
    "nvmlDeviceGetPciInfo_v3": put_fields(busId=b"00000000:53:00.0"),
    "nvmlDeviceGetSerial": put_text("165"),
    "nvmlDeviceGetVbiosVersion": put_text("96.00"),
    "nvmlDeviceGetBoardPartNumber": put_text("692-2G520"),
    "nvmlDeviceGetMinorNumber": put(4),
    "nvmlDeviceGetMaxClockInfo": give_max_clock,
    "nvmlDeviceGetMaxPcieLinkGeneration": put(5),
    "nvmlDeviceGetMaxPcieLinkWidth": put(16),
    "nvmlDeviceGetGpuFabricInfoV": give_fabric,
    "nvmlDeviceGetEnforcedPowerLimit": put(700_000),
    "nvmlDeviceGetMigMode": give_mig_mode,
    "nvmlDeviceGetMemoryInfo_v2": put_fields(total=81559 * MIB, reserved=479 * MIB, used=0, free=81080 * MIB),
    "nvmlDeviceGetUtilizationRates": put_fields(gpu=0, memory=25),
    "nvmlDeviceGetPowerUsage": put(68_920),
    "nvmlDeviceGetTotalEnergyConsumption": put(9_000_000_000_123),
    "nvmlDeviceGetTemperatureV": put_fields(temperature=29),
    "nvmlDeviceGetMarginTemperature": put_fields(marginTemperature=-3),
    "nvmlDeviceGetClockInfo": give_clock,
    "nvmlDeviceGetCurrentClocksEventReasons": put(0x44),
    "nvmlDeviceGetPerformanceState": put(0),
    "nvmlDeviceGetTotalEccErrors": give_ecc,
    "nvmlDeviceGetMemoryErrorCounter": give_ecc_at,
    "nvmlDeviceGetRemappedRows": give_remapped,
    "nvmlDeviceGetSramEccErrorStatus": put_fields(bThresholdExceeded=1, aggregateUncParity=3, aggregateUncSecDed=4),
    "nvmlDeviceGetRetiredPages": give_retired,
    "nvmlDeviceGetRetiredPagesPendingStatus": put(1),
    "nvmlDeviceGetCurrPcieLinkGeneration": put(5),
    "nvmlDeviceGetCurrPcieLinkWidth": put(16),
    "nvmlDeviceGetPcieReplayCounter": put(9),
    "nvmlDeviceGetNvLinkState": give_link,
    "nvmlDeviceGetFieldValues": fields_with({}),
    "nvmlDeviceGetComputeRunningProcesses_v3": give_processes,
}


class FakeDriver:
    """A driver of some GPUs, whose functions are plain attributes that a test may replace."""

    def __init__(
        self, functions: Mapping[str, Callable[..., int]] | None = None, *, gpu_count: int = 1, **more: Any
    ) -> None:
        self.__dict__.update(
            {
                "nvmlInitWithFlags": lambda _flags: 0,
                "nvmlShutdown": lambda: 0,
                "nvmlSystemGetDriverVersion": lambda buffer, size: put_text("590.48")(None, buffer, size),
                "nvmlDeviceGetCount_v2": put(gpu_count),
                "nvmlDeviceGetHandleByIndex_v2": give_handle,
                "nvmlDeviceGetUUID": give_uuid,
                **DEVICE_FUNCTIONS,
                **(functions or {}),
                **more,
            }
        )


def failing(code: int) -> Callable[..., int]:
    return lambda *_arguments: code


class ToldDriver(FakeDriver):
    """A driver of some GPUs that tells events: those that a test puts in, in order, then none."""

    def __init__(self, *, gpu_count: int = 1, supported: int = 0xFFFF, refused: int = 0, **more: Any) -> None:
        self.told: queue.Queue[tuple[int, int, int, int, int] | int] = queue.Queue()
        self.registered: list[tuple[int, int]] = []
        self.sets_open = 0

        def register(handle: Any, bits: Any, _set: Any) -> int:
            if bits.value & refused:
                return int(pynvml.NVML_ERROR_NOT_SUPPORTED)
            self.registered.append((cast(handle, c_void_p).value or 0, bits.value))
            return 0

        functions: dict[str, Callable[..., int]] = {
            "nvmlEventSetCreate": self._create,
            "nvmlEventSetFree": self._free,
            "nvmlDeviceGetSupportedEventTypes": put(supported),
            "nvmlDeviceRegisterEvents": register,
            "nvmlEventSetWait_v2": self._wait,
        }
        super().__init__({**functions, **more}, gpu_count=gpu_count)

    def tell(self, gpu: int, bits: int, data: int, instances: tuple[int, int] = (2**32 - 1, 2**32 - 1)) -> None:
        """Put in an event of the GPU with this index."""
        self.told.put((gpu + 1, bits, data, *instances))

    def _create(self, out: Any) -> int:
        self.sets_open += 1
        out._obj.contents = type(out._obj)._type_()
        return 0

    def _free(self, _set: Any) -> int:
        self.sets_open -= 1
        return 0

    def _wait(self, _set: Any, out: Any, timeout_ms: Any) -> int:
        try:
            event = self.told.get(timeout=timeout_ms.value / 1000)
        except queue.Empty:
            return int(pynvml.NVML_ERROR_TIMEOUT)
        if isinstance(event, int):
            self.told.task_done()
            return event
        data = out._obj
        data.device = cast(event[0], pynvml.c_nvmlDevice_t)
        data.eventType, data.eventData, data.gpuInstanceId, data.computeInstanceId = event[1:]
        self.told.task_done()
        return 0
