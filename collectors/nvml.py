"""The node source: the GPUs of this machine through NVML, with what happened to them.

pynvml keeps its library in a module variable; `NvmlSource` puts its driver there while it reads and puts back what
was there before.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from threading import RLock
from typing import Protocol, runtime_checkable

import pynvml

from collectors.nvml_changes import find_changes
from collectors.nvml_events import EventWatch, event_row
from collectors.nvml_gpm import ActivityReader
from collectors.nvml_node import NodeReader, Notes
from collectors.nvml_rows import GpuReading, NodeMemory, Place, Row, SlicePlace, frames_of
from collectors.probe import load
from fleet.batch import Batch, Trouble
from fleet.clock import Clock
from fleet.errors import SourceFailed, SourceUnavailable

_NO_DRIVER = frozenset({pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED})
# Opening the driver anew may take seconds and wakes GPUs: while one is lost it is done less and less often.
_TURNS_TO_REOPEN_MAX = 32

Tell = Callable[[str, int | None], None]


@runtime_checkable
class Troubled(Protocol):
    """A driver that has something to tell beside its readings, such as one that was made of a capture."""

    troubles: tuple[Trouble, ...]


# pynvml has one library for the whole process, so two sources must not read at the same time.
_PYNVML_LOCK = RLock()


@contextmanager
def _in_place(driver: object | None) -> Iterator[None]:
    """Hold `driver` as pynvml's library, and put back what was there before; None means the real one."""
    with _PYNVML_LOCK:
        if driver is None:
            yield
            return
        library, functions = pynvml.nvmlLib, dict(pynvml._nvmlGetFunctionPointer_cache)  # noqa: SLF001 - no public way
        pynvml.nvmlLib = driver
        pynvml._nvmlGetFunctionPointer_cache.clear()  # noqa: SLF001 - as above
        try:
            yield
        finally:
            pynvml.nvmlLib = library
            pynvml._nvmlGetFunctionPointer_cache.clear()  # noqa: SLF001 - as above
            pynvml._nvmlGetFunctionPointer_cache.update(functions)  # noqa: SLF001 - as above


class NvmlSource:
    """The GPUs of this node as a `Source`: one batch for each call, stamped with the clock.

    `driver` stands in for the NVML library (`driver_for(open_capture(...))`); None loads the real one. `tell` is
    called with what is asked for next, and the GPU's index, before the driver is asked. GPUs whose index is in
    `skip` are not touched. `memory` is what carries over from one reading to the next. `seconds` is a clock that nobody
    sets.
    """

    def __init__(
        self,
        clock: Clock,
        cluster: str,
        node: str,
        driver: object | None = None,
        *,
        tell: Tell = lambda _what, _gpu_index: None,
        make_watch: Callable[[Clock], EventWatch] = EventWatch,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock, self._cluster, self._node, self._driver, self._tell = clock, cluster, node, driver, tell
        self.skip: frozenset[int] = frozenset()
        self.memory = NodeMemory()
        self._activity = ActivityReader(seconds)
        self._make_watch = make_watch
        self._watch: EventWatch | None = None
        self._is_open = False
        self._turns_to_reopen, self._turns_since = 1, 0
        # What a captured driver has to tell of its capture, until it is told.
        self._untold = driver.troubles if isinstance(driver, Troubled) else ()

    @property
    def name(self) -> str:
        """Return the name under which watermark and failures are kept."""
        return "nvml"

    def collect(self, since: datetime | None, until: datetime) -> Iterator[Batch]:  # noqa: ARG002 - a live source has only now
        """Yield one batch of what the GPUs are doing now.

        Raises `SourceUnavailable` where there is no NVIDIA driver and `SourceFailed` where it does not answer.
        """
        with _in_place(self._driver):
            self._open()
            try:
                batch = self._read()
            except pynvml.NVMLError as error:
                self._close()
                message = f"the NVIDIA driver of node {self._node} does not answer: {error}"
                raise SourceFailed(message) from error
        yield batch

    def close(self) -> None:
        """Let go of the driver; the next `collect` takes it up again."""
        with _in_place(self._driver):
            self._close()

    def _open(self) -> None:
        # The library stays open between calls: opening it wakes every GPU that is not in persistence mode. But NVML
        # counts the GPUs when it is opened: only so one that came back is seen again.
        if self._is_open and self.memory.lost:
            self._turns_since += 1
            if self._turns_since >= self._turns_to_reopen:
                self._turns_to_reopen, self._turns_since = min(2 * self._turns_to_reopen, _TURNS_TO_REOPEN_MAX), 0
                self._close()
        elif not self.memory.lost:
            self._turns_to_reopen, self._turns_since = 1, 0
        if self._is_open:
            return
        self._tell("opening the driver", None)
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            if error.value in _NO_DRIVER:
                what = "library (libnvidia-ml.so.1)" if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND else "loaded"
                message = f"no NVIDIA driver {what} here; run this on a GPU node, or use --capture FILE"
                raise SourceUnavailable(message) from error
            message = f"the NVIDIA driver of node {self._node} can't be opened: {error}"
            raise SourceFailed(message) from error
        self._is_open = True

    def _close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        try:
            self._close_watch()
            self._activity.close()
            pynvml.nvmlShutdown()
        except pynvml.NVMLError:
            return  # a driver that does not answer is closed as far as we are concerned

    def _close_watch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _read(self) -> Batch:
        reader = NodeReader(self._node, self._activity, self.memory)
        self._tell("counting the GPUs", None)
        reader.driver = reader.notes.read("driver_version", self._node, pynvml.nvmlSystemGetDriverVersion)
        gpus = [self._read_gpu(reader, index) for index in range(pynvml.nvmlDeviceGetCount())]
        gpus += self._vanished({gpu.uuid for gpu in gpus})
        self._activity.keep(reader.looked_at)
        place = Place(self._cluster, self._node, self._clock.now(), self.name)
        happened, told = self._drain(place, gpus)
        changes, lost, counters = find_changes(place, gpus, self.memory.lost, self.memory.counters)
        self._watch_events(reader)
        frames = frames_of(place, gpus, len(gpus), [*happened, *changes])
        troubles = self._troubles(reader.notes) + told
        known = {gpu.index: (gpu.uuid, dict(gpu.identity)) for gpu in gpus if gpu.uuid is not None}
        slices = tuple(
            SlicePlace(
                slice_.uuid, gpu.uuid, slice_.identity.get("gpu_instance"), slice_.identity.get("compute_instance")
            )
            for gpu in gpus
            if gpu.uuid is not None
            for slice_ in gpu.slices
        )
        self.memory = NodeMemory(
            {**self.memory.known, **known},
            lost,
            counters,
            frozenset(reader.notes.errors),
            tuple(reader.processes),
            slices,
        )
        return Batch(self.name, frames, place.now, troubles).checked()

    def _read_gpu(self, reader: NodeReader, index: int) -> GpuReading:
        if index in self.skip:
            return reader.leave_out(index)
        self._tell(f"GPU {index}", index)
        return reader.read_gpu(index)

    def _vanished(self, seen: set[str | None]) -> list[GpuReading]:
        """Return the GPUs that were here before and that the driver no longer counts at all."""
        why = "the driver no longer lists it"
        return [
            GpuReading(index, uuid, identity, {}, lost=why, is_seen=False, is_listed=False)
            for index, (uuid, identity) in self.memory.known.items()
            if uuid not in seen
        ]

    def _watch_events(self, reader: NodeReader) -> None:
        if self._watch is not None or not reader.handles:
            return
        self._tell("registering for events", None)
        watch = self._make_watch(self._clock)
        # A driver without events is told of by nothing but its kernel log.
        reader.notes.read("events", self._node, lambda: watch.start(reader.handles))
        self._watch = watch

    def _drain(self, place: Place, gpus: list[GpuReading]) -> tuple[list[Row], tuple[Trouble, ...]]:
        """Return the rows of the driver's own events, and what was lost of them."""
        if self._watch is None:
            return [], ()
        events, overflow = self._watch.drain()
        of = {gpu.uuid: gpu for gpu in gpus if gpu.uuid is not None}
        rows = []
        for event in events:
            gpu = of.get(event.gpu_uuid) if event.gpu_uuid is not None else None
            bus_id, slices = (gpu.identity.get("pci_bus_id"), gpu.slices) if gpu is not None else (None, ())
            rows.append(event_row(place, event, bus_id, slices))
        troubles = []
        if overflow:
            reason = "more events than there was room for since the last reading; the first ones were kept"
            troubles.append(Trouble("rejected", f"{self._node}, events", reason, overflow))
        if self._watch.ended is not None:
            troubles.append(Trouble("failed", f"{self._node}, events", self._watch.ended))
            self._close_watch()
        return rows, tuple(troubles)

    def _troubles(self, notes: Notes) -> tuple[Trouble, ...]:
        """Return what went wrong, and was not told in the batch before: a lasting trouble is told once."""
        new = [key for key in notes.errors if key not in self.memory.told]
        own, self._untold = self._untold, ()
        return own + tuple(
            Trouble("failed", f"{self._node}, {metric}", reason, notes.errors[metric, reason],
                    notes.examples.get((metric, reason)))
            for metric, reason in new
        )  # fmt: skip


def open_nvml(
    tell: Tell, clock: Clock, cluster: str, node: str, driver: str | None = None, *arguments: object
) -> NvmlSource:
    """Return the source of this node for a probe; `driver` is the import path of what makes one of `arguments`."""
    return NvmlSource(clock, cluster, node, None if driver is None else load(driver)(*arguments), tell=tell)
