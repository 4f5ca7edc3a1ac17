"""One reading of the GPUs of a node: each metric on its own, with notes of what the driver did not give."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pynvml

from collectors.nvml_device import Device, Devices, Handle
from collectors.nvml_gpm import ActivityReader, Key
from collectors.nvml_identity import IDENTITY_READERS, LASTING, SLICE_READERS, SLICE_SAMPLE_READERS
from collectors.nvml_processes import RunningProcess, read_running
from collectors.nvml_readers import SAMPLE_READERS
from collectors.nvml_rows import GpuProcess, GpuReading, NodeMemory, Row, SliceReading
from collectors.nvml_values import NOT_THERE, Reader

# Under MIG these tell nothing, whatever a driver may answer.
_NOT_UNDER_MIG = ("utilization", "memory_utilization")


@dataclass(slots=True)
class Notes:
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

    def read_all(self, readers: Mapping[str, Reader], device: Device, who: str) -> Row:
        """Return the columns of all readers; those of a reader that failed are not in it."""
        row: Row = {}
        for metric, reader in readers.items():
            row |= self.read(metric, who, partial(reader, device)) or {}
        return row

    def read_identity(self, device: Device, who: str) -> Row:
        """Return what a GPU is; what cannot change is asked until all of it was told, then remembered."""
        row: Row = {}
        for metric, reader in IDENTITY_READERS.items():
            told = device.lasting.get(metric)
            if told is None:
                told = self.read(metric, who, partial(reader, device)) or {}
            if metric in LASTING and told and None not in told.values():
                device.lasting[metric] = told
            row |= told
        return row


@dataclass(slots=True)
class NodeReader:
    """Reads the GPUs of one node once; what it found beside the readings stands in its fields afterwards."""

    node: str
    activity: ActivityReader
    devices: Devices
    memory: NodeMemory
    notes: Notes = field(default_factory=Notes)
    driver: str | None = None
    handles: dict[str, Handle] = field(default_factory=dict)
    processes: list[GpuProcess] = field(default_factory=list)
    looked_at: list[Key] = field(default_factory=list)

    def read_gpu(self, index: int) -> GpuReading:
        """Return what the driver tells of the GPU with this index; a lost one keeps what is known of it."""
        self.notes.lost = None
        who = f"{self.node}, GPU {index}"
        handle = self.notes.read("handle", who, lambda: pynvml.nvmlDeviceGetHandleByIndex(index))
        uuid = None if handle is None else self.notes.read("uuid", who, lambda: pynvml.nvmlDeviceGetUUID(handle))
        last_uuid, last_identity = self.memory.known.get(index, (None, {}))
        if handle is None:
            return GpuReading(index, last_uuid, last_identity, {}, lost=self.notes.lost, is_seen=False)
        uuid = last_uuid if uuid is None else uuid
        known = last_identity if uuid == last_uuid else {}
        device = self.devices.at(index, uuid, handle)
        identity = {**known, **self.notes.read_identity(device, who), "driver": self.driver}
        device.split(identity.get("mig_enabled"))
        return self._read_device(index, uuid, identity, device)

    def leave_out(self, index: int) -> GpuReading:
        """Return what is known of a GPU that is not to be touched."""
        uuid, identity = self.memory.known.get(index, (None, {}))
        return GpuReading(index, uuid, identity, {}, is_seen=False)

    def _read_device(self, index: int, uuid: str | None, identity: Row, device: Device) -> GpuReading:
        who = f"{self.node}, GPU {index}"
        sample = self.notes.read_all(SAMPLE_READERS, device, who)
        is_split = identity.get("mig_enabled") is True
        if is_split:
            sample |= dict.fromkeys(_NOT_UNDER_MIG)
        slices: tuple[SliceReading, ...] = ()
        if uuid is None:
            if self.notes.lost is None:
                self.notes.errors["uuid", "a GPU without a UUID can't be stored"] += 1
        else:
            self.handles[uuid] = device.handle
            sample |= self._read_activity(device.handle, uuid, None, who)
            sample |= self._read_processes(device, uuid, None, who)
            slices = self._read_slices(device.handle, uuid, who) if is_split else ()
            self._drop_told_twice(uuid)
        lost = self.notes.lost
        return GpuReading(index, uuid, identity, sample, slices, lost, is_seen=lost is None)

    def _read_slices(self, gpu_handle: Handle, gpu_uuid: str, gpu: str) -> tuple[SliceReading, ...]:
        count = self.notes.read("mig_count", gpu, lambda: pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu_handle))
        activities: dict[object, Row] = {}
        found = (self._read_slice(gpu_handle, gpu_uuid, index, gpu, activities) for index in range(count or 0))
        return tuple(slice_ for slice_ in found if slice_ is not None)

    def _read_slice(
        self, gpu_handle: Handle, gpu_uuid: str, index: int, gpu: str, activities: dict[object, Row]
    ) -> SliceReading | None:
        # The count is that of the places for MIG devices; an empty place is "not found".
        who = f"{gpu}, MIG {index}"
        asked = partial(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, gpu_handle, index)
        handle = self.notes.read("mig_handle", who, asked)
        uuid = None if handle is None else self.notes.read("mig_uuid", who, lambda: pynvml.nvmlDeviceGetUUID(handle))
        if uuid is None:
            return None
        device = Device(handle)  # a slice made anew may bear the name of the one before: nothing is remembered of it
        identity = self.notes.read_all(SLICE_READERS, device, who)
        instance = identity.get("gpu_instance")
        if isinstance(instance, int) and instance not in activities:
            # The compute instances of one GPU instance share its counters: a second look would see nothing pass.
            activities[instance] = self._read_activity(gpu_handle, gpu_uuid, instance, who)
        sample = self.notes.read_all(SLICE_SAMPLE_READERS, device, who) | activities.get(instance, {})
        return SliceReading(uuid, identity, sample | self._read_processes(device, gpu_uuid, uuid, who))

    def _read_activity(self, gpu_handle: Handle, uuid: str, instance: int | None, who: str) -> Row:
        self.looked_at.append((uuid, instance))
        return self.notes.read("activity", who, lambda: self.activity.read(gpu_handle, uuid, instance)) or {}

    def _read_processes(self, device: Device, gpu_uuid: str, slice_uuid: str | None, who: str) -> Row:
        running: tuple[RunningProcess, ...] | None = self.notes.read("processes", who, lambda: read_running(device))
        if running is None:
            return {}
        self.processes += [
            GpuProcess(
                gpu_uuid, slice_uuid, process.gpu_instance, process.compute_instance, process.pid, process.kind,
                process.memory_mib,
            )
            for process in running
        ]  # fmt: skip
        return {"process_count": sum("compute" in process.kind.split("+") for process in running)}

    def _drop_told_twice(self, gpu_uuid: str) -> None:
        """Drop from the whole GPU's processes those that its MIG devices told too: there they have their place."""
        on_slices = {process.pid for process in self.processes if process.slice_uuid and process.gpu_uuid == gpu_uuid}
        self.processes = [
            process
            for process in self.processes
            if process.gpu_uuid != gpu_uuid or process.slice_uuid is not None or process.pid not in on_slices
        ]
