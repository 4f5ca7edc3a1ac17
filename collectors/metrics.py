"""Which metric is which column: queries as data, by DCGM's field numbers under all the names a field has had.

Numbers and names are NVIDIA's (dcgm_fields.h): DCGM 4.6 gave many fields a second name of the same number and value,
DCGM 4.7 added fields of their own number in base units. Names that begin with `nvidia_smi_` are those of
utkuozdemir/nvidia_gpu_exporter, and those that begin with `gpu_steward_` our own agent's, for what DCGM has no field.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fleet.tables import GPU_SAMPLE, SLICE_SAMPLE

XID_COLUMN = "xid"
FREE_COLUMN = "memory_free_mib"
INFO_COLUMN = "info"
# DCGM marks what it could not read by values no GPU reaches: its INT32, INT64 and FP64 blanks and what lies above.
_BLANKS = (2_147_483_632.0, 140_737_488_355_328.0, 9_223_372_036_854_775_792.0)
_BLANK_KINDS = 16
_MIB, _MEGA, _NANO = 2.0**20, 1e6, 1e9
_FRAME_BUFFER_MAX = 2.0**31 - 17


@dataclass(frozen=True, slots=True)
class Metric:
    """One field: the column it fills, its names, the newest last, and the unit it comes in.

    The column's value is the metric's divided by `divisor`; what lies outside `low`..`high` (in the column's unit)
    is no measurement. `field` is DCGM's number, 0 where DCGM has no such field. Of several metrics of one column the
    later in `ALL` speaks. `is_doubtful` marks a name that stands for a percentage or a ratio: what came with it tells.
    """

    field: int
    column: str
    names: tuple[str, ...]
    divisor: float = 1.0
    low: float = 0.0
    high: float = 2.0**53
    is_doubtful: bool = False


# The names our own agent writes are the first of each.
METRICS = (
    Metric(100, "sm_clock_mhz", ("DCGM_FI_DEV_SM_CLOCK",), high=100_000),
    Metric(101, "memory_clock_mhz", ("DCGM_FI_DEV_MEM_CLOCK",), high=100_000),
    Metric(112, "clock_event_bits", ("DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", "DCGM_FI_DEV_CLOCKS_EVENT_REASONS")),
    Metric(
        140, "memory_temperature_c", ("DCGM_FI_DEV_MEMORY_TEMP", "DCGM_FI_DEV_MEMORY_TEMP_CELSIUS"), low=-50, high=250
    ),
    Metric(150, "temperature_c", ("DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_GPU_TEMP_CELSIUS"), low=-50, high=250),
    Metric(
        153, "thermal_margin_c", ("DCGM_FI_DEV_GPU_TEMP_LIMIT", "DCGM_FI_DEV_GPU_TEMP_MARGIN_CELSIUS"), low=-250,
        high=250,
    ),
    Metric(155, "power_w", ("DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_BOARD_POWER_WATTS"), high=10_000),
    Metric(156, "energy_j", ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",), divisor=1000),
    Metric(190, "performance_state", ("DCGM_FI_DEV_PSTATE", "DCGM_FI_DEV_GPU_PSTATE"), high=15),
    Metric(202, "pcie_replay_count", ("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "DCGM_FI_DEV_PCIE_REPLAY_TOTAL")),
    Metric(203, "utilization", ("DCGM_FI_DEV_GPU_UTIL",), divisor=100, high=1.0),
    Metric(204, "memory_utilization", ("DCGM_FI_DEV_MEM_COPY_UTIL",), divisor=100, high=1.0),
    Metric(230, XID_COLUMN, ("DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_DEV_XID_ERROR"), high=100_000),
    Metric(237, "pcie_generation", ("DCGM_FI_DEV_PCIE_LINK_GEN",), high=100),
    Metric(238, "pcie_width", ("DCGM_FI_DEV_PCIE_LINK_WIDTH",), high=1000),
    Metric(251, FREE_COLUMN, ("DCGM_FI_DEV_FB_FREE",), high=_FRAME_BUFFER_MAX),
    Metric(252, "memory_used_mib", ("DCGM_FI_DEV_FB_USED",), high=_FRAME_BUFFER_MAX),
    Metric(253, "memory_reserved_mib", ("DCGM_FI_DEV_FB_RESERVED",), high=_FRAME_BUFFER_MAX),
    Metric(310, "ecc_corrected_count", ("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL",)),
    Metric(311, "ecc_uncorrected_count", ("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",)),
    Metric(312, "ecc_corrected_lifetime_count", ("DCGM_FI_DEV_ECC_SBE_AGG_TOTAL",)),
    Metric(313, "ecc_uncorrected_lifetime_count", ("DCGM_FI_DEV_ECC_DBE_AGG_TOTAL",)),
    Metric(
        393, "rows_remapped_uncorrected_count",
        ("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "DCGM_FI_DEV_ROW_REMAP_UNCORRECTABLE_TOTAL"), high=1_000_000,
    ),
    Metric(
        394, "rows_remapped_corrected_count",
        ("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "DCGM_FI_DEV_ROW_REMAP_CORRECTABLE_TOTAL"), high=1_000_000,
    ),
    Metric(395, "is_remap_failed", ("DCGM_FI_DEV_ROW_REMAP_FAILURE", "DCGM_FI_DEV_ROW_REMAP_FAILED"), high=1.0),
    Metric(396, "is_remap_pending", ("DCGM_FI_DEV_ROW_REMAP_PENDING",), high=1.0),
    Metric(1001, "gr_activity", ("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO"), high=1.0),
    Metric(1002, "sm_activity", ("DCGM_FI_PROF_SM_ACTIVE", "DCGM_FI_PROF_SM_UTIL_RATIO"), high=1.0),
    Metric(1004, "tensor_activity", ("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "DCGM_FI_PROF_TENSOR_UTIL_RATIO"), high=1.0),
    Metric(1005, "dram_activity", ("DCGM_FI_PROF_DRAM_ACTIVE", "DCGM_FI_PROF_DRAM_UTIL_RATIO"), high=1.0),
    Metric(
        1523, "recovery_action", ("DCGM_FI_DEV_GET_GPU_RECOVERY_ACTION", "DCGM_FI_DEV_GPU_RECOVERY_ACTION"), high=255
    ),
    # Of the GPU itself, which keeps its last known value.
    Metric(113, "sm_clock_max_mhz", ("DCGM_FI_DEV_MAX_SM_CLOCK",), high=100_000),
    Metric(114, "memory_clock_max_mhz", ("DCGM_FI_DEV_MAX_MEM_CLOCK",), high=100_000),
    Metric(
        164, "power_limit_w", ("DCGM_FI_DEV_ENFORCED_POWER_LIMIT", "DCGM_FI_DEV_BOARD_POWER_LIMIT_ENFORCED_WATTS"),
        high=10_000,
    ),
    Metric(235, "pcie_generation_max", ("DCGM_FI_DEV_PCIE_MAX_LINK_GEN",), high=100),
    Metric(236, "pcie_width_max", ("DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH",), high=1000),
)  # fmt: skip

# Columns of a sample that our own agent writes under a name of ours, as it does for any other without one above.
OWN_PREFIX = "gpu_steward_"

# DCGM's under names that our agent does not write: other units, or fields that few exporters have switched on. Field
# 203 was called GPU_UTIL_RATIO in DCGM 4.6 though it holds whole percent; from 4.7 on that name is field 1613, which
# is a ratio.
_OTHERS = (
    Metric(250, "memory_mib", ("DCGM_FI_DEV_FB_TOTAL",), high=_FRAME_BUFFER_MAX),
    Metric(342, "ecc_sram_corrected_count", ("DCGM_FI_DEV_ECC_SBE_VOL_SRM",)),
    Metric(343, "ecc_sram_uncorrected_count", ("DCGM_FI_DEV_ECC_DBE_VOL_SRM",)),
    Metric(344, "ecc_sram_corrected_lifetime_count", ("DCGM_FI_DEV_ECC_SBE_AGG_SRM",)),
    Metric(345, "ecc_sram_uncorrected_lifetime_count", ("DCGM_FI_DEV_ECC_DBE_AGG_SRM",)),
    Metric(
        346, "is_sram_threshold_exceeded", ("DCGM_FI_DEV_THRESHOLD_SRM", "DCGM_FI_DEV_SRAM_EXCEEDED"), high=1.0
    ),
    Metric(
        392, "is_page_retirement_pending", ("DCGM_FI_DEV_RETIRED_PENDING", "DCGM_FI_DEV_PAGE_RETIRED_PENDING"),
        high=1.0,
    ),
    *(
        Metric(field, f"slowed_by_{column}_s", (f"DCGM_FI_DEV_CLOCKS_EVENT_REASON_{reason}_NS",), divisor=_NANO)
        for field, column, reason in (
            (1420, "power_cap", "SW_POWER_CAP"),
            (1421, "sync_boost", "SYNC_BOOST"),
            (1422, "software_thermal", "SW_THERM_SLOWDOWN"),
            (1423, "hardware_thermal", "HW_THERM_SLOWDOWN"),
            (1424, "power_brake", "HW_POWER_BRAKE_SLOWDOWN"),
        )
    ),
    Metric(1603, "sm_clock_mhz", ("DCGM_FI_DEV_SM_CLOCK_HERTZ",), divisor=_MEGA, high=100_000),
    Metric(1604, "memory_clock_mhz", ("DCGM_FI_DEV_MEMORY_CLOCK_HERTZ",), divisor=_MEGA, high=100_000),
    Metric(1611, "energy_j", ("DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL",)),
    Metric(1613, "utilization", ("DCGM_FI_DEV_GPU_UTIL_RATIO",), high=1.0, is_doubtful=True),
    Metric(1614, "memory_utilization", ("DCGM_FI_DEV_MEMORY_UTIL_RATIO",), high=1.0),
    Metric(1625, "memory_mib", ("DCGM_FI_DEV_FB_CAPACITY_BYTES",), divisor=_MIB, high=_FRAME_BUFFER_MAX),
    Metric(1627, "memory_used_mib", ("DCGM_FI_DEV_FB_USED_BYTES",), divisor=_MIB, high=_FRAME_BUFFER_MAX),
    Metric(1628, "memory_reserved_mib", ("DCGM_FI_DEV_FB_RESERVED_BYTES",), divisor=_MIB, high=_FRAME_BUFFER_MAX),
)  # fmt: skip

_SLOWED = "clocks_event_reasons_counters"
_SMI = tuple(
    Metric(0, column, (f"nvidia_smi_{name}",), divisor, low, high)
    for column, name, divisor, low, high in (
        (INFO_COLUMN, "gpu_info", 1.0, 0.0, 1.0),
        ("utilization", "utilization_gpu_ratio", 1.0, 0.0, 1.0),
        ("memory_utilization", "utilization_memory_ratio", 1.0, 0.0, 1.0),
        ("memory_mib", "memory_total_bytes", _MIB, 0.0, _FRAME_BUFFER_MAX),
        ("memory_used_mib", "memory_used_bytes", _MIB, 0.0, _FRAME_BUFFER_MAX),
        ("memory_reserved_mib", "memory_reserved_bytes", _MIB, 0.0, _FRAME_BUFFER_MAX),
        ("power_w", "power_draw_watts", 1.0, 0.0, 10_000.0),
        ("power_limit_w", "enforced_power_limit_watts", 1.0, 0.0, 10_000.0),
        ("temperature_c", "temperature_gpu", 1.0, -50.0, 250.0),
        ("memory_temperature_c", "temperature_memory", 1.0, -50.0, 250.0),
        ("thermal_margin_c", "temperature_gpu_tlimit", 1.0, -250.0, 250.0),
        ("sm_clock_mhz", "clocks_current_sm_clock_hz", _MEGA, 0.0, 100_000.0),
        ("memory_clock_mhz", "clocks_current_memory_clock_hz", _MEGA, 0.0, 100_000.0),
        ("sm_clock_max_mhz", "clocks_max_sm_clock_hz", _MEGA, 0.0, 100_000.0),
        ("memory_clock_max_mhz", "clocks_max_memory_clock_hz", _MEGA, 0.0, 100_000.0),
        ("performance_state", "pstate", 1.0, 0.0, 15.0),
        ("clock_event_bits", "clocks_event_reasons_active", 1.0, 0.0, 2.0**53),
        ("slowed_by_power_cap_s", f"{_SLOWED}_sw_power_cap_seconds", 1.0, 0.0, 2.0**53),
        ("slowed_by_sync_boost_s", f"{_SLOWED}_sync_boost_seconds", 1.0, 0.0, 2.0**53),
        ("slowed_by_software_thermal_s", f"{_SLOWED}_sw_thermal_slowdown_seconds", 1.0, 0.0, 2.0**53),
        ("slowed_by_hardware_thermal_s", f"{_SLOWED}_hw_thermal_slowdown_seconds", 1.0, 0.0, 2.0**53),
        ("slowed_by_power_brake_s", f"{_SLOWED}_hw_power_brake_slowdown_seconds", 1.0, 0.0, 2.0**53),
        *(
            (f"ecc_{place}{kind}{'_lifetime' if when == 'aggregate' else ''}_count",
             f"ecc_errors_{kind}_{when}_{place.removesuffix('_') or 'total'}", 1.0, 0.0, 2.0**53)
            for kind in ("corrected", "uncorrected")
            for when in ("volatile", "aggregate")
            for place in ("", "dram_", "sram_")
        ),
        ("is_sram_threshold_exceeded", "ecc_errors_uncorrected_aggregate_sram_threshold_exceeded", 1.0, 0.0, 1.0),
        ("rows_remapped_corrected_count", "remapped_rows_correctable", 1.0, 0.0, 1e6),
        ("rows_remapped_uncorrected_count", "remapped_rows_uncorrectable", 1.0, 0.0, 1e6),
        ("is_remap_pending", "remapped_rows_pending", 1.0, 0.0, 1.0),
        ("is_remap_failed", "remapped_rows_failure", 1.0, 0.0, 1.0),
        ("pcie_generation", "pcie_link_gen_current", 1.0, 0.0, 100.0),
        ("pcie_width", "pcie_link_width_current", 1.0, 0.0, 1000.0),
        ("pcie_generation_max", "pcie_link_gen_max", 1.0, 0.0, 100.0),
        ("pcie_width_max", "pcie_link_width_max", 1.0, 0.0, 1000.0),
        ("recovery_action", "gpu_recovery_action", 1.0, 0.0, 255.0),
    )
)  # fmt: skip

_KEYS = frozenset({"gpu_uuid", "slice_uuid", "ts"})


def own_metric(column: str) -> Metric:
    """Return the metric that our agent writes for a column of a sample that no field of DCGM stands for."""
    return Metric(0, column, (f"{OWN_PREFIX}{column}",), high=1.0 if column.startswith("is_") else 2.0**53)


def _own() -> tuple[Metric, ...]:
    columns = {**SLICE_SAMPLE.schema("wire"), **GPU_SAMPLE.schema("wire")}
    known = {metric.column for metric in METRICS} | _KEYS
    return tuple(own_metric(name) for name in columns if name not in known)


OWN = _own()
ALL = (*_SMI, *_OTHERS, *METRICS, *OWN)
BY_NAME: Mapping[str, Metric] = MappingProxyType({name: metric for metric in ALL for name in metric.names})
# Of two names of one column at one moment the one of the higher rank speaks.
RANKS: Mapping[str, int] = MappingProxyType({name: rank for rank, name in enumerate(BY_NAME)})

# Exporters and scrape settings name one thing differently; the first label that is there and not empty speaks.
LABELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "gpu_uuid": ("UUID", "uuid", "gpu_uuid"),
        "gpu_index": ("gpu", "index", "minor_number"),
        "node": ("Hostname", "hostname", "node", "kubernetes_node", "nodename", "instance"),
        "model": ("modelName", "model_name", "model"),
        "pci_bus_id": ("pci_bus_id",),
        "driver": ("DCGM_FI_DRIVER_VERSION", "DCGM_FI_SYSTEM_DRIVER_VERSION", "driver_version"),
        "serial": ("serial",),
        "vbios": ("vbios_version",),
        "slice_uuid": ("MIG_UUID", "GPU_I_UUID"),
        "gpu_instance": ("GPU_I_ID",),
        "compute_instance": ("GPU_C_ID",),
        "profile": ("GPU_I_PROFILE",),
        "cluster": ("cluster",),
    }
)


def label(labels: Mapping[str, str], what: str) -> str | None:
    """Return what a series' labels say of `what` (a key of `LABELS`), None where they say nothing."""
    for name in LABELS[what]:
        found = labels.get(name)
        if found:
            return found
    return None


def is_blank(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which of DCGM's values stand for "could not be read"."""
    large = np.flatnonzero(values >= _BLANKS[0])
    blank = np.zeros(len(values), dtype=np.bool_)
    if len(large):
        found = values[large]
        blank[large] = np.any([(found >= lowest) & (found <= lowest + _BLANK_KINDS) for lowest in _BLANKS], axis=0)
    return blank
