"""The readings of a capture: where each stands in the XML and in the text form, and what its words mean."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from collectors.capture_tree import Section
from fleet.errors import BadTrace


class Absence(Enum):
    """Why a reading is not there, in the driver's own terms."""

    NOT_SUPPORTED = "not supported"
    NO_PERMISSION = "no permission"
    GPU_IS_LOST = "gpu is lost"
    RESET_REQUIRED = "reset required"
    FUNCTION_NOT_FOUND = "function not found"
    UNKNOWN = "unknown error"


Reading = bool | float | str | Absence

_ABSENT = {
    "": Absence.NOT_SUPPORTED,
    "n/a": Absence.NOT_SUPPORTED,
    "na": Absence.NOT_SUPPORTED,
    "-": Absence.NOT_SUPPORTED,
    "not supported": Absence.NOT_SUPPORTED,
    "not available": Absence.NOT_SUPPORTED,
    "requested functionality has been deprecated": Absence.NOT_SUPPORTED,
    "not found": Absence.NOT_SUPPORTED,
    "insufficient permissions": Absence.NO_PERMISSION,
    "insufficient permission": Absence.NO_PERMISSION,
    "gpu is lost": Absence.GPU_IS_LOST,
    "gpu requires reset": Absence.RESET_REQUIRED,
    "gpu requires restart": Absence.RESET_REQUIRED,
    "function not found": Absence.FUNCTION_NOT_FOUND,
    "unknown error": Absence.UNKNOWN,
    "err!": Absence.UNKNOWN,
    "error": Absence.UNKNOWN,
}
_YES = frozenset({"yes", "active", "enabled", "true", "on"})
_NO = frozenset({"no", "not active", "disabled", "false", "off", "inactive"})

# How many of the reading's unit one of the written unit is; memory is kept in MiB, clocks in MHz, power in W.
# The older reports write MB and mean MiB, as the driver counts in powers of two throughout.
_UNITS: Mapping[str, Mapping[str, float]] = {
    "mib": {"kib": 1 / 1024, "mib": 1.0, "mb": 1.0, "gib": 1024.0, "gb": 1024.0, "tib": 1024.0**2},
    "w": {"w": 1.0, "mw": 0.001, "kw": 1000.0},
    "c": {"c": 1.0},
    "mhz": {"mhz": 1.0, "ghz": 1000.0},
    "%": {"%": 1.0},
    "j": {"j": 1.0, "mj": 0.001, "kj": 1000.0},
    "s": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9},
    "x": {"x": 1.0, "": 1.0},
    "": {"": 1.0},
}
_NUMBER = re.compile(r"^(?P<number>[+-]?\d+(?:\.\d+)?)\s*(?P<unit>[^\d\s]*)$")


@dataclass(frozen=True, slots=True)
class Field:
    """One reading: its unit ("" a count, "text", "flag") and its places, the first that holds something wins."""

    unit: str
    xml: tuple[str, ...]
    text: tuple[str, ...]


_LINK_XML, _LINK_TEXT = "pci/pci_gpu_link_info", "PCI/GPU Link Info"
_POWER_XML = ("gpu_power_readings", "power_readings")
_POWER_TEXT = ("GPU Power Readings", "Power Readings")

_SLOWED_XML, _SLOWED_TEXT = "clocks_event_reasons_counters", "Clocks Event Reasons Counters"
_SLOWED_FIELDS: Mapping[str, Field] = {
    f"slowed_by_{name}_s": Field("s", (f"{_SLOWED_XML}/{_SLOWED_XML}_{xml}",), (f"{_SLOWED_TEXT}/{text}",))
    for name, xml, text in (
        ("power_cap", "sw_power_cap", "SW Power Capping"),
        ("sync_boost", "sync_boost", "Sync Boost"),
        ("software_thermal", "sw_therm_slowdown", "SW Thermal Slowdown"),
        ("hardware_thermal", "hw_therm_slowdown", "HW Thermal Slowdown"),
        ("power_brake", "hw_power_brake", "HW Power Braking"),
    )
}

GPU_FIELDS: Mapping[str, Field] = {
    "uuid": Field("text", ("uuid",), ("GPU UUID",)),
    "name": Field("text", ("product_name",), ("Product Name",)),
    "architecture": Field("text", ("product_architecture",), ("Product Architecture",)),
    "serial": Field("text", ("serial",), ("Serial Number",)),
    "vbios": Field("text", ("vbios_version",), ("VBIOS Version",)),
    "board_part_number": Field("text", ("board_part_number",), ("Board Part Number",)),
    "minor_number": Field("", ("minor_number",), ("Minor Number",)),
    "bus_id": Field("text", ("pci/pci_bus_id",), ("PCI/Bus Id",)),
    "mig": Field("flag", ("mig_mode/current_mig",), ("MIG Mode/Current",)),
    "memory_total_mib": Field("mib", ("fb_memory_usage/total",), ("FB Memory Usage/Total",)),
    "memory_reserved_mib": Field("mib", ("fb_memory_usage/reserved",), ("FB Memory Usage/Reserved",)),
    "memory_used_mib": Field("mib", ("fb_memory_usage/used",), ("FB Memory Usage/Used",)),
    "memory_free_mib": Field("mib", ("fb_memory_usage/free",), ("FB Memory Usage/Free",)),
    "utilization_percent": Field("%", ("utilization/gpu_util",), ("Utilization/GPU",)),
    "memory_utilization_percent": Field("%", ("utilization/memory_util",), ("Utilization/Memory",)),
    # nvmlDeviceGetPowerUsage gives the one-second mean where there is one, else the last reading.
    "power_w": Field(
        "w",
        tuple(f"{part}/{name}" for name in ("average_power_draw", "power_draw", "instant_power_draw")
              for part in _POWER_XML),
        tuple(f"{part}/{name}" for name in ("Average Power Draw", "Power Draw", "Instantaneous Power Draw")
              for part in _POWER_TEXT),
    ),
    "power_limit_w": Field(
        "w",
        tuple(f"{part}/{name}" for name in ("current_power_limit", "enforced_power_limit", "power_limit")
              for part in _POWER_XML),
        tuple(f"{part}/{name}" for name in ("Current Power Limit", "Enforced Power Limit", "Power Limit")
              for part in _POWER_TEXT),
    ),
    "energy_j": Field(
        "j",
        tuple(f"{part}/total_energy_consumption" for part in (*_POWER_XML, "gpu_energy_consumption")),
        tuple(f"{part}/Total Energy Consumption" for part in (*_POWER_TEXT, "GPU Energy Consumption")),
    ),
    "temperature_c": Field("c", ("temperature/gpu_temp",), ("Temperature/GPU Current Temp",)),
    "memory_temperature_c": Field("c", ("temperature/memory_temp",), ("Temperature/Memory Current Temp",)),
    "thermal_margin_c": Field("c", ("temperature/gpu_temp_tlimit",), ("Temperature/GPU T.Limit Temp",)),
    "sm_clock_mhz": Field("mhz", ("clocks/sm_clock",), ("Clocks/SM",)),
    "memory_clock_mhz": Field("mhz", ("clocks/mem_clock",), ("Clocks/Memory",)),
    "sm_clock_max_mhz": Field("mhz", ("max_clocks/sm_clock",), ("Max Clocks/SM",)),
    "memory_clock_max_mhz": Field("mhz", ("max_clocks/mem_clock",), ("Max Clocks/Memory",)),
    "performance_state": Field("text", ("performance_state",), ("Performance State",)),
    **_SLOWED_FIELDS,
    "remapped_corrected": Field("", ("remapped_rows/remapped_row_corr",), ("Remapped Rows/Correctable Error",)),
    "remapped_uncorrected": Field("", ("remapped_rows/remapped_row_unc",), ("Remapped Rows/Uncorrectable Error",)),
    "remap_pending": Field("flag", ("remapped_rows/remapped_row_pending",), ("Remapped Rows/Pending",)),
    "remap_failed": Field(
        "flag", ("remapped_rows/remapped_row_failure",), ("Remapped Rows/Remapping Failure Occurred",)
    ),
    "sram_threshold_exceeded": Field(
        "flag", ("ecc_errors/aggregate/sram_threshold_exceeded",), ("ECC Errors/Aggregate/SRAM Threshold Exceeded",)
    ),
    "retired_single_bit": Field(
        "", ("retired_pages/multiple_single_bit_retirement/retired_count",), ("Retired Pages/Single Bit ECC",)
    ),
    "retired_double_bit": Field(
        "", ("retired_pages/double_bit_retirement/retired_count",), ("Retired Pages/Double Bit ECC",)
    ),
    "retirement_pending": Field(
        "flag",
        ("retired_pages/pending_retirement", "retired_pages/pending_blacklist"),
        ("Retired Pages/Pending Page Blacklist", "Retired Pages/Pending Page Retirement", "Retired Pages/Pending"),
    ),
    "pcie_generation": Field(
        "", (f"{_LINK_XML}/pcie_gen/current_link_gen",), (f"{_LINK_TEXT}/PCIe Generation/Current",)
    ),
    "pcie_width": Field("x", (f"{_LINK_XML}/link_widths/current_link_width",), (f"{_LINK_TEXT}/Link Width/Current",)),
    "pcie_generation_max": Field(
        "", (f"{_LINK_XML}/pcie_gen/max_link_gen",), (f"{_LINK_TEXT}/PCIe Generation/Max",)
    ),
    "pcie_width_max": Field("x", (f"{_LINK_XML}/link_widths/max_link_width",), (f"{_LINK_TEXT}/Link Width/Max",)),
    "pcie_replay_count": Field("", ("pci/replay_counter",), ("PCI/Replays Since Reset",)),
    "fabric_state": Field("text", ("fabric/state",), ("Fabric/State",)),
    "fabric_status": Field("text", ("fabric/status",), ("Fabric/Status",)),
    "fabric_clique": Field("", ("fabric/cliqueid",), ("Fabric/CliqueId",)),
    "fabric_cluster_uuid": Field("text", ("fabric/clusteruuid",), ("Fabric/ClusterUUID",)),
    "recovery_action": Field("text", ("gpu_recovery_action",), ("GPU Recovery Action",)),
}  # fmt: skip

SLICE_FIELDS: Mapping[str, Field] = {
    "index": Field("", ("index",), ("Index",)),
    "gpu_instance": Field("", ("gpu_instance_id",), ("GPU Instance ID",)),
    "compute_instance": Field("", ("compute_instance_id",), ("Compute Instance ID",)),
    "uuid": Field("text", ("uuid", "mig_uuid"), ("UUID", "MIG UUID")),
    "memory_total_mib": Field(
        "mib", ("fb_memory_usage/total",), ("Shared FB Memory Usage/Total", "FB Memory Usage/Total")
    ),
    "memory_reserved_mib": Field(
        "mib", ("fb_memory_usage/reserved",), ("Shared FB Memory Usage/Reserved", "FB Memory Usage/Reserved")
    ),
    "memory_used_mib": Field(
        "mib", ("fb_memory_usage/used",), ("Shared FB Memory Usage/Used", "FB Memory Usage/Used")
    ),
    "memory_free_mib": Field(
        "mib", ("fb_memory_usage/free",), ("Shared FB Memory Usage/Free", "FB Memory Usage/Free")
    ),
    "multiprocessors": Field(
        "",
        ("device_attributes/shared/multiprocessor_count",),
        ("Device Attributes/Shared/Multiprocessor count",),
    ),
}  # fmt: skip

PROCESS_FIELDS: Mapping[str, Field] = {
    "pid": Field("", ("pid",), ()),
    "type": Field("text", ("type",), ()),
    "gpu_instance": Field("", ("gpu_instance_id",), ()),
    "compute_instance": Field("", ("compute_instance_id",), ()),
    "memory_mib": Field("mib", ("used_memory",), ()),
}

_ECC_PARTS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("sram", "corrected"): ("sram_correctable",),
    ("sram", "uncorrected"): ("sram_uncorrectable", "sram_uncorrectable_parity", "sram_uncorrectable_secded"),
    ("dram", "corrected"): ("dram_correctable",),
    ("dram", "uncorrected"): ("dram_uncorrectable",),
}
# Totals over the places an error can be counted in. A total that is written down goes before the sum of parts.
ECC_FIELDS: Mapping[str, tuple[str, ...]] = {
    f"ecc_{kind}_{when}": _ECC_PARTS["sram", kind] + _ECC_PARTS["dram", kind]
    for when in ("volatile", "aggregate")
    for kind in ("corrected", "uncorrected")
}
# The same by place, and the SRAM errors of which each place is counted once.
ECC_PLACE_FIELDS: Mapping[str, tuple[str, ...]] = {
    f"ecc_{place}_{kind}_{when}": parts
    for when in ("volatile", "aggregate")
    for (place, kind), parts in _ECC_PARTS.items()
} | {"ecc_unique_uncorrected_aggregate": ("sram_uncorrectable_parity", "sram_uncorrectable_secded")}


def parse(text: str, unit: str, place: str) -> Reading:
    """Return what one written reading means in its unit; `place` (file, line, field) is for `BadTrace`."""
    words = text.strip().strip("[]").strip()
    absence = _ABSENT.get(words.casefold())
    if absence is not None:
        return absence
    if unit == "text":
        return words
    if unit == "flag":
        return _flag(words, place)
    return _number(words, unit, place)


def _flag(words: str, place: str) -> Reading:
    word = words.casefold()
    if word in _YES:
        return True
    if word in _NO:
        return False
    message = f"{place}: {words!r} is neither yes nor no"
    raise BadTrace(message, place=place)


def _number(words: str, unit: str, place: str) -> Reading:
    match = _NUMBER.match(words)
    if match is None and not any(letter.isdigit() for letter in words):
        # A driver says in words, different ones in each version, why it has no number.
        return Absence.NOT_SUPPORTED if words.casefold() in {"none", "disabled"} else Absence.UNKNOWN
    factor = None if match is None else _UNITS[unit].get(match["unit"].casefold())
    if match is None or factor is None:
        message = f"{place}: {words!r} is not a number of {unit or 'things'}"
        raise BadTrace(message, place=place)
    return float(match["number"]) * factor


def read(section: Section, field: Field, form: str, name: str, place: str) -> Reading:
    """Return one reading of a part of the report, in the form "xml" or "text", or why it is not there."""
    answer: Reading = Absence.FUNCTION_NOT_FOUND
    for path in field.xml if form == "xml" else field.text:
        found, is_whole_path = section.deepest(path)
        where = f"{place}, line {found.line}, {name}"
        if is_whole_path:
            reading = parse(found.text, field.unit, where)
        else:
            # "Remapped Rows : N/A" answers for everything inside it.
            reading = _ABSENT.get(found.text.strip("[] ").casefold(), Absence.FUNCTION_NOT_FOUND)
            reading = Absence.FUNCTION_NOT_FOUND if not found.text else reading
        if not isinstance(reading, Absence):
            return reading
        if answer is Absence.FUNCTION_NOT_FOUND:
            answer = reading
    return answer


def read_ecc(section: Section, form: str, name: str, place: str) -> Reading:
    """Return one ECC total: the written one, else the sum of the parts that are counted on this GPU."""
    _, kind, when = name.split("_")
    bit = "single_bit" if kind == "corrected" else "double_bit"
    older = Field("", (f"ecc_errors/{when}/{bit}/total",), (f"ECC Errors/{when}/{bit.replace('_', ' ')}/Total",))
    written = read(section, older, form, name, place)
    if not isinstance(written, Absence):
        return written
    return _sum_of_parts(section, form, name, ECC_FIELDS[name], place)


def read_ecc_place(section: Section, form: str, name: str, place: str) -> Reading:
    """Return one ECC count of one place (a name of `ECC_PLACE_FIELDS`): the sum of its parts."""
    return _sum_of_parts(section, form, name, ECC_PLACE_FIELDS[name], place)


def _sum_of_parts(section: Section, form: str, name: str, parts: tuple[str, ...], place: str) -> Reading:
    when = name.rsplit("_", 1)[-1]
    readings = [_read_ecc_part(section, form, f"{when}/{part}", name, place) for part in parts]
    counted = [reading for reading in readings if isinstance(reading, float)]
    if counted:
        return sum(counted)
    told = (reading for reading in readings if reading is not Absence.FUNCTION_NOT_FOUND)
    return next(told, Absence.FUNCTION_NOT_FOUND)


def _read_ecc_part(section: Section, form: str, path: str, name: str, place: str) -> Reading:
    words = path.replace("_secded", " sec-ded").replace("_", " ")
    return read(section, Field("", (f"ecc_errors/{path}",), (f"ECC Errors/{words}",)), form, name, place)


# NVML clock event reasons (nvml.h, nvmlClocksEventReasons) by the words that both forms use for them.
_CLOCK_EVENTS: Mapping[str, int] = {
    "gpu_idle": 0x1,
    "idle": 0x1,
    "applications_clocks_setting": 0x2,
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
    "display_clocks_setting": 0x100,
    "display_clock_setting": 0x100,
}
_CLOCK_EVENT_PARTS = ("clocks_event_reasons", "clocks_throttle_reasons")
_CLOCK_EVENT_PREFIX = re.compile(r"^clocks_(?:event|throttle)_reason_")


def read_clock_events(section: Section, place: str) -> Reading:
    """Return the bit mask of the clock event reasons that are active; absent where none is told at all."""
    part = next((child for name in _CLOCK_EVENT_PARTS for child in _named(section, name)), None)
    if part is None:
        return Absence.FUNCTION_NOT_FOUND
    if not part.children:
        return _ABSENT.get(part.text.strip("[] ").casefold(), Absence.UNKNOWN)
    mask, known = 0, False
    for child in _descendants(part):
        bit = _CLOCK_EVENTS.get(_CLOCK_EVENT_PREFIX.sub("", child.name.replace(" ", "_")))
        answer = parse(child.text, "flag", f"{place}, line {child.line}, {child.name}") if bit is not None else None
        if bit is not None and isinstance(answer, bool):
            known = True
            mask |= bit if answer else 0
    return float(mask) if known else Absence.NOT_SUPPORTED


def _named(section: Section, name: str) -> list[Section]:
    return [child for child in section.children if child.name.replace(" ", "_") == name]


def _descendants(section: Section) -> list[Section]:
    return [deeper for child in section.children for deeper in (child, *_descendants(child))]
