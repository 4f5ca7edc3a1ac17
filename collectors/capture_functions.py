"""The functions of a captured driver that concern one device, by their names in the C library."""

import uuid
from collections.abc import Mapping

from collectors.capture import CapturedGpu, CapturedProcess, CapturedSlice
from collectors.capture_answers import (
    ANSWERS,
    BLANK_32,
    BLANK_64,
    Answer,
    CArgument,
    Function,
    target,
    write,
    write_text,
)
from collectors.capture_fields import Absence, Reading

Subject = CapturedGpu | CapturedSlice

_MIB = 2**20

# One number to one pointer: the function, the reading, and how many of the driver's unit one of ours is.
_NUMBERS: Mapping[str, tuple[str, float]] = {
    "nvmlDeviceGetPowerUsage": ("power_w", 1000),
    "nvmlDeviceGetEnforcedPowerLimit": ("power_limit_w", 1000),
    "nvmlDeviceGetTotalEnergyConsumption": ("energy_j", 1000),
    "nvmlDeviceGetCurrentClocksEventReasons": ("clock_events", 1),
    "nvmlDeviceGetCurrPcieLinkGeneration": ("pcie_generation", 1),
    "nvmlDeviceGetCurrPcieLinkWidth": ("pcie_width", 1),
    "nvmlDeviceGetMaxPcieLinkGeneration": ("pcie_generation_max", 1),
    "nvmlDeviceGetMaxPcieLinkWidth": ("pcie_width_max", 1),
    "nvmlDeviceGetMinorNumber": ("minor_number", 1),
    "nvmlDeviceGetPcieReplayCounter": ("pcie_replay_count", 1),
    "nvmlDeviceGetRetiredPagesPendingStatus": ("retirement_pending", 1),
    "nvmlDeviceGetGpuInstanceId": ("gpu_instance", 1),
    "nvmlDeviceGetComputeInstanceId": ("compute_instance", 1),
}
_TEXTS: Mapping[str, str] = {
    "nvmlDeviceGetSerial": "serial",
    "nvmlDeviceGetVbiosVersion": "vbios",
    "nvmlDeviceGetBoardPartNumber": "board_part_number",
}
_CLOCKS: Mapping[int, str] = {1: "sm_clock_mhz", 2: "memory_clock_mhz"}  # nvmlClockType_t
_MAX_CLOCKS: Mapping[int, str] = {1: "sm_clock_max_mhz", 2: "memory_clock_max_mhz"}
_ECC_PLACES: Mapping[int, str] = {2: "dram", 7: "sram"}  # nvmlMemoryLocation_t
_FABRIC_STATES: Mapping[str, int] = {  # nvmlGpuFabricState_t
    "not supported": 0, "not started": 1, "in progress": 2, "completed": 3,
}  # fmt: skip
_FABRIC_STATE_COMPLETED = 3
# Times slowed are counted in nanoseconds, 64 bits wide (NVML_FI_DEV_CLOCKS_EVENT_REASON_*).
_SLOWED_FIELDS: Mapping[int, str] = {
    74: "slowed_by_power_cap_s", 76: "slowed_by_sync_boost_s", 269: "slowed_by_software_thermal_s",
    270: "slowed_by_hardware_thermal_s", 271: "slowed_by_power_brake_s",
}  # fmt: skip
_LINK_COUNT_FIELD = 91
_ARCHITECTURES: Mapping[str, int] = {  # nvmlDeviceArchitecture_t
    "kepler": 2, "maxwell": 3, "pascal": 4, "volta": 5, "turing": 6, "ampere": 7, "ada lovelace": 8, "ada": 8,
    "hopper": 9, "blackwell": 10, "rubin": 13,
}  # fmt: skip
_RECOVERY_ACTIONS: Mapping[str, int] = {  # nvmlDeviceGpuRecoveryAction_t
    "none": 0, "reset": 1, "gpu reset": 1, "reboot": 2, "node reboot": 2, "drain p2p": 3, "drain and reset": 4,
    "recover imex domain": 5, "bus reset": 6, "system reboot": 7,
}  # fmt: skip
_MEMORY_TEMPERATURE_FIELD, _RECOVERY_ACTION_FIELD = 82, 230  # NVML_FI_DEV_*
_UNSIGNED_INT, _UNSIGNED_LONG_LONG = 1, 3  # nvmlValueType_t


def _reading(subject: Subject, name: str) -> Reading:
    # What the GPU has and a MIG device has not (power, clocks) is not supported on the latter.
    return subject.readings.get(name, Absence.NOT_SUPPORTED)


def device_functions() -> dict[str, Function]:
    """Return the functions of one device: `(subject, its GPU, the rest of the C arguments) -> return code`."""
    functions: dict[str, Function] = {name: _give_number(*how) for name, how in _NUMBERS.items()}
    functions |= {name: _give_text(reading) for name, reading in _TEXTS.items()}
    return functions | {
        "nvmlDeviceGetUUID": _give_uuid,
        "nvmlDeviceGetName": _give_name,
        "nvmlDeviceGetArchitecture": _give_architecture,
        "nvmlDeviceGetPciInfo_v3": _give_pci,
        "nvmlDeviceGetMemoryInfo": _give_memory,
        "nvmlDeviceGetMemoryInfo_v2": _give_memory_v2,
        "nvmlDeviceGetUtilizationRates": _give_utilization,
        "nvmlDeviceGetTemperature": lambda subject, _gpu, _sensor, out: write(out, _reading(subject, "temperature_c")),
        "nvmlDeviceGetMarginTemperature": _give_margin,
        "nvmlDeviceGetClockInfo": _give_clock,
        "nvmlDeviceGetMaxClockInfo": _give_max_clock,
        "nvmlDeviceGetPerformanceState": _give_performance_state,
        "nvmlDeviceGetGpuFabricInfoV": _give_fabric,
        "nvmlDeviceGetMemoryErrorCounter": _give_ecc_at,
        "nvmlDeviceGetTotalEccErrors": _give_ecc,
        "nvmlDeviceGetSramEccErrorStatus": _give_sram,
        "nvmlDeviceGetRemappedRows": _give_remapped,
        "nvmlDeviceGetRetiredPages": _give_retired,
        "nvmlDeviceGetNvLinkState": _give_link,
        "nvmlDeviceGetFieldValues": _give_fields,
        "nvmlDeviceGetComputeRunningProcesses_v3": _processes_that("is_compute"),
        "nvmlDeviceGetGraphicsRunningProcesses_v3": _processes_that("is_graphics"),
        "nvmlDeviceGetMPSComputeRunningProcesses_v3": _processes_that("is_mps"),
        "nvmlDeviceGetMigMode": _give_mig,
        "nvmlDeviceGetMaxMigDeviceCount": lambda _subject, gpu, out: write(out, len(gpu.slices)),
        "nvmlDeviceGetAttributes_v2": _give_attributes,
    }


def _give_number(name: str, factor: float) -> Function:
    return lambda subject, _gpu, out: write(out, _reading(subject, name), factor)


def _give_text(name: str) -> Function:
    return lambda subject, _gpu, buffer, _size: write_text(buffer, _reading(subject, name))


def _give_uuid(subject: Subject, _gpu: CapturedGpu, buffer: CArgument, _size: CArgument) -> int:
    return write_text(buffer, subject.uuid if subject.uuid is not None else _reading(subject, "uuid"))


def _give_name(subject: Subject, gpu: CapturedGpu, buffer: CArgument, _size: CArgument) -> int:
    name = _reading(gpu, "name")
    if isinstance(subject, CapturedGpu):
        return write_text(buffer, name)
    profile = _reading(subject, "profile")
    return write_text(buffer, f"{name} MIG {profile}" if isinstance(profile, str) else profile)


def _give_architecture(subject: Subject, _gpu: CapturedGpu, out: CArgument) -> int:
    name = _reading(subject, "architecture")
    return write(out, _ARCHITECTURES.get(name.casefold(), BLANK_32) if isinstance(name, str) else name)


def _give_pci(_subject: Subject, gpu: CapturedGpu, out: CArgument) -> int:
    bus_id = _reading(gpu, "bus_id")
    if not isinstance(bus_id, str):
        return ANSWERS[bus_id] if isinstance(bus_id, Absence) else Answer.UNKNOWN
    target(out).busId = bus_id.encode()
    return Answer.SUCCESS


def _bytes_of(subject: Subject, part: str) -> int:
    reading = _reading(subject, f"memory_{part}_mib")
    return round(reading * _MIB) if isinstance(reading, float) else BLANK_64


def _give_memory(
    subject: Subject, _gpu: CapturedGpu, out: CArgument, parts: tuple[str, ...] = ("total", "used", "free")
) -> int:
    total = _reading(subject, "memory_total_mib")
    if isinstance(total, Absence):
        return ANSWERS[total]
    for part in parts:
        setattr(target(out), part, _bytes_of(subject, part))
    return Answer.SUCCESS


def _give_memory_v2(subject: Subject, gpu: CapturedGpu, out: CArgument) -> int:
    reserved = _reading(subject, "memory_reserved_mib")
    if reserved is Absence.FUNCTION_NOT_FOUND:
        return Answer.FUNCTION_NOT_FOUND  # drivers before R510 do not tell reserved memory apart
    return _give_memory(subject, gpu, out, ("total", "reserved", "used", "free"))


def _give_utilization(subject: Subject, _gpu: CapturedGpu, out: CArgument) -> int:
    readings = (_reading(subject, "utilization_percent"), _reading(subject, "memory_utilization_percent"))
    absent = [reading for reading in readings if isinstance(reading, Absence)]
    if len(absent) == len(readings):
        return ANSWERS[absent[0]]
    values = [round(reading) if isinstance(reading, float) else BLANK_32 for reading in readings]
    target(out).gpu, target(out).memory = values
    return Answer.SUCCESS


def _give_margin(subject: Subject, _gpu: CapturedGpu, out: CArgument) -> int:
    margin = _reading(subject, "thermal_margin_c")
    if isinstance(margin, float):
        target(out).marginTemperature = round(margin)
        return Answer.SUCCESS
    return ANSWERS[margin] if isinstance(margin, Absence) else Answer.UNKNOWN


def _give_clock(subject: Subject, _gpu: CapturedGpu, kind: CArgument, out: CArgument) -> int:
    name = _CLOCKS.get(kind.value)
    return Answer.NOT_SUPPORTED if name is None else write(out, _reading(subject, name))


def _give_max_clock(subject: Subject, _gpu: CapturedGpu, kind: CArgument, out: CArgument) -> int:
    name = _MAX_CLOCKS.get(kind.value)
    return Answer.NOT_SUPPORTED if name is None else write(out, _reading(subject, name))


def _give_performance_state(subject: Subject, _gpu: CapturedGpu, out: CArgument) -> int:
    state = _reading(subject, "performance_state")
    if isinstance(state, str):
        state = float(state[1:]) if state[:1] == "P" and state[1:].isdigit() else Absence.UNKNOWN
    return write(out, state)


def _give_fabric(subject: Subject, _gpu: CapturedGpu, out: CArgument) -> int:
    state = _reading(subject, "fabric_state")
    if isinstance(state, Absence):
        return ANSWERS[state]
    number = _FABRIC_STATES.get(str(state).casefold())
    if number is None:
        return Answer.UNKNOWN
    info = target(out)
    info.state = number
    status, clique = _reading(subject, "fabric_status"), _reading(subject, "fabric_clique")
    info.status = Answer.SUCCESS if isinstance(status, str) and status.casefold() == "success" else Answer.UNKNOWN
    info.cliqueId = round(clique) if isinstance(clique, float) else BLANK_32
    info.healthMask = BLANK_32  # the reports say the health in words, most of them "N/A"
    cluster = _reading(subject, "fabric_cluster_uuid")
    if isinstance(cluster, str) and number == _FABRIC_STATE_COMPLETED:
        info.clusterUuid[:] = uuid.UUID(cluster).bytes
    return Answer.SUCCESS


def _give_ecc_at(
    subject: Subject, _gpu: CapturedGpu, kind: CArgument, when: CArgument, place: CArgument, out: CArgument
) -> int:
    kind_name, when_name = ("corrected", "uncorrected")[kind.value], ("volatile", "aggregate")[when.value]
    where = _ECC_PLACES.get(place.value)
    if where is None:
        return Answer.NOT_SUPPORTED
    return write(out, _reading(subject, f"ecc_{where}_{kind_name}_{when_name}"))


def _give_ecc(subject: Subject, _gpu: CapturedGpu, kind: CArgument, when: CArgument, out: CArgument) -> int:
    kind_name, when_name = ("corrected", "uncorrected")[kind.value], ("volatile", "aggregate")[when.value]
    return write(out, _reading(subject, f"ecc_{kind_name}_{when_name}"))


def _give_sram(subject: Subject, _gpu: CapturedGpu, out: CArgument) -> int:
    is_exceeded = _reading(subject, "sram_threshold_exceeded")
    if isinstance(is_exceeded, bool):
        unique = _reading(subject, "ecc_unique_uncorrected_aggregate")
        target(out).bThresholdExceeded = int(is_exceeded)
        target(out).aggregateUncParity = round(unique) if isinstance(unique, float) else BLANK_64
        target(out).aggregateUncSecDed = 0 if isinstance(unique, float) else BLANK_64
        return Answer.SUCCESS
    return ANSWERS[is_exceeded] if isinstance(is_exceeded, Absence) else Answer.UNKNOWN


def _give_remapped(subject: Subject, _gpu: CapturedGpu, *outs: CArgument) -> int:
    names = ("remapped_corrected", "remapped_uncorrected", "remap_pending", "remap_failed")
    readings = [_reading(subject, name) for name in names]
    absent = [reading for reading in readings if isinstance(reading, Absence)]
    if len(absent) == len(readings):
        return ANSWERS[absent[0]]
    for out, reading in zip(outs, readings, strict=True):
        write(out, BLANK_32 if isinstance(reading, Absence) else reading)
    return Answer.SUCCESS


def _give_retired(subject: Subject, _gpu: CapturedGpu, cause: CArgument, count: CArgument, pages: CArgument) -> int:
    number = _reading(subject, ("retired_single_bit", "retired_double_bit")[cause.value])
    if isinstance(number, float) and pages is None and number > 0:
        write(count, number)
        return Answer.INSUFFICIENT_SIZE
    return write(count, number)


def _give_link(_subject: Subject, gpu: CapturedGpu, link: int, out: CArgument) -> int:
    if gpu.links_up is None:
        return Answer.NOT_SUPPORTED
    return write(out, gpu.links_up[link]) if link < len(gpu.links_up) else Answer.INVALID_ARGUMENT


def _give_fields(subject: Subject, gpu: CapturedGpu, count: CArgument, values: CArgument) -> int:
    action = _reading(subject, "recovery_action")
    if isinstance(action, str):
        # A word of a driver later than this list is not "none", so it must not read as such.
        number = _RECOVERY_ACTIONS.get(action.casefold())
        action = Absence.UNKNOWN if number is None else float(number)
    links = Absence.NOT_SUPPORTED if gpu.links_up is None else float(len(gpu.links_up))
    known: dict[int, Reading] = {
        _MEMORY_TEMPERATURE_FIELD: _reading(subject, "memory_temperature_c"),
        _RECOVERY_ACTION_FIELD: action,
        _LINK_COUNT_FIELD: links,
    }
    known |= {number: _reading(subject, name) for number, name in _SLOWED_FIELDS.items()}
    for index in range(count.value):
        _write_field(target(values)[index], known.get(target(values)[index].fieldId, Absence.NOT_SUPPORTED))
    return Answer.SUCCESS


def _write_field(slot: CArgument, value: Reading) -> None:
    if isinstance(value, float) and slot.fieldId in _SLOWED_FIELDS:
        slot.nvmlReturn, slot.valueType, slot.value.ullVal = Answer.SUCCESS, _UNSIGNED_LONG_LONG, round(value * 1e9)
    elif isinstance(value, float):
        slot.nvmlReturn, slot.valueType, slot.value.uiVal = Answer.SUCCESS, _UNSIGNED_INT, round(value)
    else:
        slot.nvmlReturn = ANSWERS[value] if isinstance(value, Absence) else Answer.UNKNOWN


def _processes_that(kind: str) -> Function:
    return lambda subject, gpu, count, slots: _give_processes(subject, gpu, kind, count, slots)


def _give_processes(subject: Subject, gpu: CapturedGpu, kind: str, count: CArgument, slots: CArgument) -> int:
    if isinstance(gpu.processes, Absence):
        return ANSWERS[gpu.processes]
    found = [process for process in gpu.processes if getattr(process, kind) and _is_on(process, subject)]
    write(count, len(found))
    if slots is None:
        return Answer.INSUFFICIENT_SIZE if found else Answer.SUCCESS
    for slot, process in zip(slots, found, strict=False):  # the caller leaves room for more than there are
        slot.pid = process.pid
        slot.usedGpuMemory = BLANK_64 if process.memory_mib is None else round(process.memory_mib * _MIB)
        slot.gpuInstanceId = BLANK_32 if process.gpu_instance is None else process.gpu_instance
        slot.computeInstanceId = BLANK_32 if process.compute_instance is None else process.compute_instance
    return Answer.SUCCESS


def _is_on(process: CapturedProcess, subject: Subject) -> bool:
    if isinstance(subject, CapturedGpu):
        return True
    ids = (subject.readings["gpu_instance"], subject.readings["compute_instance"])
    return (process.gpu_instance, process.compute_instance) == ids


def _give_mig(subject: Subject, _gpu: CapturedGpu, current: CArgument, pending: CArgument) -> int:
    answer = write(current, _reading(subject, "mig"))
    return answer or write(pending, _reading(subject, "mig"))


def _give_attributes(subject: Subject, _gpu: CapturedGpu, out: CArgument) -> int:
    profile = _reading(subject, "profile")
    slices = _slices_of(profile) if isinstance(profile, str) else None
    if slices is None:
        return Answer.NOT_SUPPORTED  # without the profile nothing tells how many slices it is
    target(out).computeInstanceSliceCount, target(out).gpuInstanceSliceCount = slices
    return Answer.SUCCESS


def _slices_of(profile: str) -> tuple[int, int] | None:
    """Return compute and GPU slices of a profile: 1g.10gb is (1, 1), 1c.3g.40gb is (1, 3)."""
    counts = {part[-1]: int(part[:-1]) for part in profile.split(".") if part[:-1].isdigit() and part[-1] in "cg"}
    return (counts.get("c", counts["g"]), counts["g"]) if "g" in counts else None
