"""What a GPU and a MIG device are, through pynvml: readers, each of which may fail without the others."""

import re
import uuid
from collections.abc import Callable, Mapping
from types import MappingProxyType

import pynvml

from collectors.nvml_device import Device, Handle
from collectors.nvml_readers import read_fabric
from collectors.nvml_rows import Row
from collectors.nvml_values import (
    Reader,
    asking,
    known,
    link_states,
    number,
    one,
    read_memory,
    read_memory_total,
    supported,
)

_ARCHITECTURES = MappingProxyType(
    {
        2: "Kepler", 3: "Maxwell", 4: "Pascal", 5: "Volta", 6: "Turing", 7: "Ampere", 8: "Ada Lovelace",
        9: "Hopper", 10: "Blackwell", 13: "Rubin",
    }
)  # fmt: skip
_FABRIC_STATES = MappingProxyType(
    {
        pynvml.NVML_GPU_FABRIC_STATE_NOT_SUPPORTED: "not_supported",
        pynvml.NVML_GPU_FABRIC_STATE_NOT_STARTED: "not_started",
        pynvml.NVML_GPU_FABRIC_STATE_IN_PROGRESS: "in_progress",
        pynvml.NVML_GPU_FABRIC_STATE_COMPLETED: "completed",
    }
)


def _read_fabric(device: Device) -> Row:
    info = device.once(read_fabric)
    row: Row = {"fabric_state": _FABRIC_STATES.get(info.state)}
    if info.state != pynvml.NVML_GPU_FABRIC_STATE_COMPLETED:
        return row  # only then do status, cluster and clique mean anything
    cluster = uuid.UUID(bytes=bytes(info.clusterUuid))
    return row | {
        "fabric_status": known(info.status),
        # A fabric inside of one node has no name.
        "fabric_cluster_uuid": str(cluster) if cluster.int else None,
        "fabric_clique": known(info.cliqueId),
    }


def _read_link_count(device: Device) -> int | None:
    counted = supported(lambda: device.field(pynvml.NVML_FI_DEV_NVLINK_LINK_COUNT))
    return known(counted) if counted is not None else len(device.once(link_states)) or None


def _text(column: str, read: Callable[[Handle], str]) -> Reader:
    return one(column, lambda device: device.ask(read) or None)


def _bus_id(handle: Handle) -> str:
    return str(pynvml.nvmlDeviceGetPciInfo(handle).busId)


# Every part of the identity by its name in troubles; each may fail without the others.
IDENTITY_READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "name": one("model", asking(pynvml.nvmlDeviceGetName)),
        "architecture": one(
            "architecture", lambda device: _ARCHITECTURES.get(device.ask(pynvml.nvmlDeviceGetArchitecture))
        ),
        "memory_total": read_memory_total,
        "power_limit": number("power_limit_w", asking(pynvml.nvmlDeviceGetEnforcedPowerLimit), 1000),
        "pci": _text("pci_bus_id", _bus_id),
        "serial": _text("serial", pynvml.nvmlDeviceGetSerial),
        "board": _text("board_part_number", pynvml.nvmlDeviceGetBoardPartNumber),
        "minor_number": number("minor_number", asking(pynvml.nvmlDeviceGetMinorNumber)),
        "vbios": _text("vbios", pynvml.nvmlDeviceGetVbiosVersion),
        "mig_mode": one(
            "mig_enabled", lambda device: device.ask(pynvml.nvmlDeviceGetMigMode)[0] == pynvml.NVML_DEVICE_MIG_ENABLE
        ),
        "sm_clock_max": number("sm_clock_max_mhz", asking(pynvml.nvmlDeviceGetMaxClockInfo, pynvml.NVML_CLOCK_SM)),
        "memory_clock_max": number(
            "memory_clock_max_mhz", asking(pynvml.nvmlDeviceGetMaxClockInfo, pynvml.NVML_CLOCK_MEM)
        ),
        "pcie_generation_max": number("pcie_generation_max", asking(pynvml.nvmlDeviceGetMaxPcieLinkGeneration)),
        "pcie_width_max": number("pcie_width_max", asking(pynvml.nvmlDeviceGetMaxPcieLinkWidth)),
        "nvlink_count": one("nvlink_count", _read_link_count),
        "fabric": _read_fabric,
    }
)

# What cannot change while a driver is open.
LASTING = frozenset(IDENTITY_READERS) - {"power_limit", "mig_mode", "fabric"}

_PROFILE = re.compile(r"\bMIG (\S+)$")


def _read_profile(device: Device) -> str | None:
    match = _PROFILE.search(device.ask(pynvml.nvmlDeviceGetName))
    return None if match is None else match[1]


SLICE_READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "gpu_instance": number("gpu_instance", asking(pynvml.nvmlDeviceGetGpuInstanceId)),
        "compute_instance": number("compute_instance", asking(pynvml.nvmlDeviceGetComputeInstanceId)),
        "profile": one("profile", _read_profile),
        "compute_slices": one(
            "compute_slices", lambda device: device.ask(pynvml.nvmlDeviceGetAttributes).computeInstanceSliceCount
        ),
        "memory_total": read_memory_total,
    }
)
SLICE_SAMPLE_READERS: Mapping[str, Reader] = MappingProxyType(
    {"memory": lambda device: {"memory_used_mib": read_memory(device)["memory_used_mib"]}}
)
