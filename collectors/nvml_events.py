"""What the driver tells by itself: one thread waits for its events and keeps them until the next reading.

The thread asks pynvml for the waiting function once, while it may, and then calls the driver directly: pynvml's
library variable belongs to whoever reads at that moment.
"""

import ctypes
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

import pynvml

from collectors.nvml_device import Handle
from collectors.nvml_rows import Place, Row, SliceReading
from collectors.nvml_values import known
from fleet.clock import Clock

# The events worth a row, by the driver's bit. Single corrected errors, P-states and clocks are not: samples show them.
EVENT_KINDS: Mapping[int, str] = MappingProxyType(
    {
        pynvml.nvmlEventTypeXidCriticalError: "xid",
        pynvml.nvmlEventTypeDoubleBitEccError: "ecc_double_bit",
        pynvml.nvmlEventTypeSingleBitEccErrorStorm: "ecc_single_bit_storm",
        pynvml.nvmlEventTypeDramRetirementEvent: "dram_retirement",
        pynvml.nvmlEventTypeDramRetirementFailure: "dram_retirement_failed",
        pynvml.nvmlEventTypeNonFatalPoisonError: "poison_contained",
        pynvml.nvmlEventTypeFatalPoisonError: "poison_fatal",
        pynvml.nvmlEventTypeGpuUnavailableError: "gpu_unavailable",
        pynvml.nvmlEventTypeGpuRecoveryAction: "recovery_action",
        pynvml.nvmlEventMigConfigChange: "mig_config",
    }
)
_WITH_CODE = frozenset({"xid", "recovery_action"})


@dataclass(frozen=True, slots=True)
class DriverEvent:
    """One event as the driver told it; the instances are None where it concerns the whole GPU."""

    ts: datetime
    gpu_uuid: str | None
    kind: str
    data: int
    gpu_instance: int | None
    compute_instance: int | None


class EventWatch:
    """Waits for the events of some GPUs in a thread of its own, from `start` until `close`.

    At most `capacity` events are kept between two drains: the first ones, since they name the cause.
    """

    def __init__(self, clock: Clock, *, capacity: int = 4096, wait_ms: int = 500) -> None:
        self._clock, self._wait_ms = clock, wait_ms
        self._queue: queue.Queue[DriverEvent] = queue.Queue(capacity)
        self._overflow, self._counting = 0, threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._set: Any = None
        self._uuids: dict[int, str] = {}
        self.left_out: tuple[str, ...] = ()
        self.ended: str | None = None

    def start(self, gpus: Mapping[str, Handle]) -> None:
        """Begin to wait for what each GPU (by UUID) supports; kinds that it does not are in `left_out`.

        Raises `NVMLError` where the driver has no events at all.
        """
        self._set = pynvml.nvmlEventSetCreate()
        registered = {uuid: self._register(handle) for uuid, handle in gpus.items()}
        self._uuids = {_address(handle): uuid for uuid, handle in gpus.items()}
        told = set().union(*registered.values())
        self.left_out = tuple(kind for kind in EVENT_KINDS.values() if kind not in told)
        if told:
            wait = pynvml._nvmlGetFunctionPointer("nvmlEventSetWait_v2")  # noqa: SLF001 - see the module's docstring
            self._thread = threading.Thread(target=self._run, args=(wait,), name="nvml-events", daemon=True)
            self._thread.start()

    def drain(self) -> tuple[list[DriverEvent], int]:
        """Return what was told since the last drain, and how many events there was no room for."""
        # Not more than were there when it began: a storm must not keep the reader here.
        found = [event for event in (self._next() for _ in range(self._queue.qsize())) if event is not None]
        with self._counting:
            overflow, self._overflow = self._overflow, 0
        return found, overflow

    def close(self) -> None:
        """Stop waiting, and give the event set back unless the driver still holds the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=4 * self._wait_ms / 1000 + 1)
        if self._set is not None and (self._thread is None or not self._thread.is_alive()):
            try:
                pynvml.nvmlEventSetFree(self._set)
            except pynvml.NVMLError as error:
                self.ended = str(error)  # a driver that does not answer frees it with the process
        self._set = None

    def _next(self) -> DriverEvent | None:
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def _register(self, handle: Handle) -> set[str]:
        """Register kind by kind: one that the driver refuses takes no other with it."""
        try:
            offered = pynvml.nvmlDeviceGetSupportedEventTypes(handle)
        except pynvml.NVMLError:
            return set()
        return {kind for bit, kind in EVENT_KINDS.items() if offered & bit and self._is_registered(handle, bit)}

    def _is_registered(self, handle: Handle, bit: int) -> bool:
        try:
            pynvml.nvmlDeviceRegisterEvents(handle, bit, self._set)
        except pynvml.NVMLError:
            return False
        return True

    def _run(self, wait: Callable[..., int]) -> None:
        while not self._stop.is_set():
            data = pynvml.c_nvmlEventData_t()
            answer = wait(self._set, ctypes.byref(data), ctypes.c_uint(self._wait_ms))
            if answer == pynvml.NVML_SUCCESS:
                self._keep(data)
            elif answer != pynvml.NVML_ERROR_TIMEOUT:
                # Waiting again would only give the same answer at once; the next reading starts a new watch.
                self.ended = f"the driver stopped telling events (NVML return code {answer})"
                return

    def _keep(self, data: Any) -> None:  # noqa: ANN401 - pynvml has no types
        kind = EVENT_KINDS.get(data.eventType)
        if kind is None:
            return
        uuid = self._uuids.get(_address(data.device))
        instances = known(data.gpuInstanceId), known(data.computeInstanceId)
        try:
            self._queue.put_nowait(DriverEvent(self._clock.now(), uuid, kind, data.eventData, *instances))
        except queue.Full:
            with self._counting:
                self._overflow += 1


def _address(handle: Handle) -> int:
    return int(ctypes.cast(handle, ctypes.c_void_p).value or 0)


def event_row(place: Place, event: DriverEvent, bus_id: object, slices: tuple[SliceReading, ...]) -> Row:
    """Return the row of one event; `slices` are the MIG devices of its GPU, to find the one it concerns."""
    concerned = [slice_ for slice_ in slices if _concerns(event, slice_)]
    whom = [
        f"{what} {number}"
        for what, number in (("GPU instance", event.gpu_instance), ("compute instance", event.compute_instance))
        if number is not None
    ]
    return {
        "ts": event.ts,
        "cluster": place.cluster,
        "node": place.node,
        "gpu_uuid": event.gpu_uuid,
        "slice_uuid": concerned[0].uuid if len(concerned) == 1 else None,
        "kind": event.kind,
        "code": event.data if event.kind in _WITH_CODE and event.data < 2**31 else None,
        "pci_bus_id": bus_id if isinstance(bus_id, str) else None,
        "message": ", ".join([f"{event.kind} {event.data}" if event.kind in _WITH_CODE else event.kind, *whom]),
        "source": place.source,
    }


def _concerns(event: DriverEvent, slice_: SliceReading) -> bool:
    if event.gpu_instance is None or slice_.identity.get("gpu_instance") != event.gpu_instance:
        return False
    return event.compute_instance in {None, slice_.identity.get("compute_instance")}
