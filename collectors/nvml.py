"""The node source: read the GPUs of this machine through NVML, each metric on its own.

A metric that the driver does not give is null and takes nothing else with it. pynvml keeps its library in a
module variable; `NvmlSource` puts its driver there while it reads and puts back what was there before.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from threading import RLock
from typing import Any, Protocol, runtime_checkable

import pynvml

from collectors.nvml_readers import (
    IDENTITY_READERS,
    NOT_THERE,
    SAMPLE_READERS,
    SLICE_READERS,
    SLICE_SAMPLE_READERS,
    Handle,
    Reader,
)
from collectors.nvml_rows import GpuReading, Place, Row, SliceReading, Value, frames_of
from fleet.batch import Batch, Trouble
from fleet.clock import Clock
from fleet.errors import SourceFailed, SourceUnavailable

_NO_DRIVER = frozenset({pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED})


@dataclass(slots=True)
class _Notes:
    """What went wrong while one node was read: errors by metric, and the loss of the GPU being read."""

    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], str] = field(default_factory=dict)
    lost: str | None = None

    def read(self, metric: str, who: str, call: Callable[[], Any]) -> Any:  # noqa: ANN401 - pynvml has no types
        """Return what `call` gives, or None with a note of why it gives nothing, unless that is quite usual."""
        try:
            return call()
        except pynvml.NVMLError as error:
            reason, code = str(error), error.value
        except UnicodeDecodeError as error:  # pynvml decodes the driver's text, which a damaged board may garble
            reason, code = f"not text: {error.reason}", None
        if code == pynvml.NVML_ERROR_GPU_IS_LOST:
            self.lost = reason
        elif code not in NOT_THERE:
            self.errors[metric, reason] += 1
            self.examples.setdefault((metric, reason), who)
        return None

    def read_all(self, readers: Mapping[str, Reader], handle: Handle, who: str) -> Row:
        """Return the columns of all readers; those of a reader that failed are not in it."""
        row: Row = {}
        for metric, reader in readers.items():
            row |= self.read(metric, who, partial(reader, handle)) or {}
        return row


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

    `driver` stands in for the NVML library (`driver_for(open_capture(...))`); None loads the real one.
    """

    def __init__(self, clock: Clock, cluster: str, node: str, driver: object | None = None) -> None:
        self._clock, self._cluster, self._node, self._driver = clock, cluster, node, driver
        self._is_open = False
        self._last_known: dict[int, tuple[str, Mapping[str, Value]]] = {}
        self._told: frozenset[tuple[str, str]] = frozenset()
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
        # The library stays open between calls: opening it wakes every GPU that is not in persistence mode.
        if self._is_open:
            return
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
            pynvml.nvmlShutdown()
        except pynvml.NVMLError:
            return  # a driver that does not answer is closed as far as we are concerned

    def _read(self) -> Batch:
        now, notes = self._clock.now(), _Notes()
        driver = notes.read("driver_version", self._node, pynvml.nvmlSystemGetDriverVersion)
        gpus = [self._read_gpu(index, driver, notes) for index in range(pynvml.nvmlDeviceGetCount())]
        gpus += self._vanished({gpu.uuid for gpu in gpus})
        self._last_known |= {gpu.index: (gpu.uuid, gpu.identity) for gpu in gpus if gpu.uuid is not None}
        if any(gpu.lost is not None for gpu in gpus):
            self._close()  # NVML counts the GPUs when it is opened: only so one that came back is seen again
        place = Place(self._cluster, self._node, now, self.name)
        frames = frames_of(place, gpus, len(gpus))
        return Batch(self.name, frames, now, self._troubles(notes)).checked()

    def _read_gpu(self, index: int, driver: str | None, notes: _Notes) -> GpuReading:
        notes.lost = None
        who = f"{self._node}, GPU {index}"
        handle = notes.read("handle", who, lambda: pynvml.nvmlDeviceGetHandleByIndex(index))
        uuid = None if handle is None else notes.read("uuid", who, lambda: pynvml.nvmlDeviceGetUUID(handle))
        last_uuid, last_identity = self._last_known.get(index, (None, {}))
        if handle is None:
            return GpuReading(index, last_uuid, last_identity, {}, lost=notes.lost, is_seen=False)
        uuid = last_uuid if uuid is None else uuid
        known = last_identity if uuid == last_uuid else {}
        identity = {**known, **notes.read_all(IDENTITY_READERS, handle, who), "driver": driver}
        sample = notes.read_all(SAMPLE_READERS, handle, who)
        slices = self._read_slices(handle, who, notes) if identity.get("mig_enabled") is True else ()
        if uuid is None and notes.lost is None:
            notes.errors["uuid", "a GPU without a UUID can't be stored"] += 1
        return GpuReading(index, uuid, identity, sample, slices, notes.lost, is_seen=notes.lost is None)

    def _read_slices(self, gpu_handle: Handle, gpu: str, notes: _Notes) -> tuple[SliceReading, ...]:
        count = notes.read("mig_count", gpu, lambda: pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu_handle))
        found = (self._read_slice(gpu_handle, index, gpu, notes) for index in range(count or 0))
        return tuple(slice_ for slice_ in found if slice_ is not None)

    def _read_slice(self, gpu_handle: Handle, index: int, gpu: str, notes: _Notes) -> SliceReading | None:
        # The count is that of the places for MIG devices; an empty place is "not found".
        who = f"{gpu}, MIG {index}"
        handle = notes.read("mig_handle", who, lambda: pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu_handle, index))
        uuid = None if handle is None else notes.read("mig_uuid", who, lambda: pynvml.nvmlDeviceGetUUID(handle))
        if uuid is None:
            return None
        identity = notes.read_all(SLICE_READERS, handle, who)
        return SliceReading(uuid, identity, notes.read_all(SLICE_SAMPLE_READERS, handle, who))

    def _vanished(self, seen: set[str | None]) -> list[GpuReading]:
        """Return the GPUs that were here before and that the driver no longer counts at all."""
        why = "the driver no longer lists it"
        return [
            GpuReading(index, uuid, identity, {}, lost=why, is_seen=False)
            for index, (uuid, identity) in self._last_known.items()
            if uuid not in seen
        ]

    def _troubles(self, notes: _Notes) -> tuple[Trouble, ...]:
        """Return what went wrong, and was not told in the batch before: a lasting trouble is told once."""
        new = [key for key in notes.errors if key not in self._told]
        own, self._untold = self._untold, ()
        self._told = frozenset(notes.errors)
        return own + tuple(
            Trouble("failed", f"{self._node}, {metric}", reason, notes.errors[metric, reason],
                    notes.examples.get((metric, reason)))
            for metric, reason in new
        )  # fmt: skip
