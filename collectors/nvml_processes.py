"""The processes on a GPU or a MIG device through pynvml: what kinds of work they do there, and their memory."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pynvml

from collectors.nvml_device import Device, Handle
from collectors.nvml_values import first, known, mib, supported

# The versioned names: the plain ones answer a missing function with an exception of another tree. The list of
# running processes in detail is not asked for: its wrapper fails where the driver has no number for the memory.
_KINDS: tuple[tuple[str, tuple[Callable[[Handle], Any], ...]], ...] = (
    (
        "graphics",
        (pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3, pynvml.nvmlDeviceGetGraphicsRunningProcesses_v2),
    ),
    (
        "mps",
        (pynvml.nvmlDeviceGetMPSComputeRunningProcesses_v3, pynvml.nvmlDeviceGetMPSComputeRunningProcesses_v2),
    ),
)


@dataclass(frozen=True, slots=True)
class RunningProcess:
    """One process on a device; `kind` is what it does there, several kinds joined by a plus sign."""

    pid: int
    kind: str
    memory_mib: int | None
    gpu_instance: int | None
    compute_instance: int | None


def read_running(device: Device) -> tuple[RunningProcess, ...]:
    """Return the processes of a device; raise where even those that compute are not told.

    A pid is that of the machine's own process namespace.
    """
    compute = pynvml.nvmlDeviceGetComputeRunningProcesses_v3, pynvml.nvmlDeviceGetComputeRunningProcesses_v2
    found = [_process("compute", process) for process in first(device, *compute)]
    for kind, functions in _KINDS:
        for process in supported(partial(first, device, *functions)) or ():
            _add(found, _process(kind, process))
    return tuple(found)


def _process(kind: str, process: Any) -> RunningProcess:  # noqa: ANN401 - pynvml has no types
    return RunningProcess(
        pid=process.pid,
        kind=kind,
        memory_mib=None if process.usedGpuMemory is None else mib(process.usedGpuMemory),
        gpu_instance=known(process.gpuInstanceId),
        compute_instance=known(process.computeInstanceId),
    )


def _add(found: list[RunningProcess], process: RunningProcess) -> None:
    """Add a process, or its kind to the same process that does something else there too."""
    for index, other in enumerate(found):
        if replace(other, kind=process.kind, memory_mib=process.memory_mib) == process:
            found[index] = replace(other, kind=f"{other.kind}+{process.kind}")
            return
    found.append(process)
