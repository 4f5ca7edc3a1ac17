"""Which metric is which column: DCGM's fields by number, under their old and their new names.

Numbers and names are NVIDIA's (dcgm_fields.h; DCGM 4.6 gave many fields a second name). A field keeps its number and
its values under both names, so a server that has both for a while still gives one value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import polars as pl

XID_COLUMN = "xid"
# DCGM marks what it could not read by values no GPU reaches: its INT32, INT64 and FP64 blanks and what lies above.
_BLANKS = (2_147_483_632, 140_737_488_355_328, 9_223_372_036_854_775_792)
_BLANK_KINDS = 16


@dataclass(frozen=True, slots=True)
class Metric:
    """One DCGM field: its column in `gpu_sample` (and `slice_sample`), its names, the newest last, and its scale.

    The column's value is the metric's times `scale`; what lies outside `low`..`high` (in the column's unit) is no
    measurement.
    """

    field: int
    column: str
    names: tuple[str, ...]
    scale: float = 1.0
    low: float = 0.0
    high: float = 2.0**53


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
    Metric(156, "energy_j", ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",), scale=0.001),
    Metric(202, "pcie_replay_count", ("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "DCGM_FI_DEV_PCIE_REPLAY_TOTAL")),
    Metric(203, "utilization", ("DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_UTIL_RATIO"), scale=0.01, high=1.0),
    Metric(204, "memory_utilization", ("DCGM_FI_DEV_MEM_COPY_UTIL",), scale=0.01, high=1.0),
    Metric(230, XID_COLUMN, ("DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_DEV_XID_ERROR"), high=100_000),
    Metric(252, "memory_used_mib", ("DCGM_FI_DEV_FB_USED",), high=2**31 - 17),
    Metric(253, "memory_reserved_mib", ("DCGM_FI_DEV_FB_RESERVED",), high=2**31 - 17),
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
)  # fmt: skip

BY_NAME: Mapping[str, Metric] = MappingProxyType({name: metric for metric in METRICS for name in metric.names})

# Exporters and scrape settings name one thing differently; the first label that is there and not empty speaks. With
# `honor_labels: false` the exporter's own pod stands in `pod` and the pod that holds the GPU in `exported_pod`.
LABELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "gpu_uuid": ("UUID", "uuid", "gpu_uuid"),
        "gpu_index": ("gpu", "index", "minor_number"),
        "node": ("Hostname", "hostname", "node", "kubernetes_node", "instance"),
        "model": ("modelName", "model_name", "model"),
        "pci_bus_id": ("pci_bus_id",),
        "driver": ("DCGM_FI_DRIVER_VERSION", "DCGM_FI_SYSTEM_DRIVER_VERSION"),
        "gpu_instance": ("GPU_I_ID",),
        "profile": ("GPU_I_PROFILE",),
        "cluster": ("cluster",),
    }
)


def label(labels: Mapping[str, str], what: str) -> str | None:
    """Return what a series' labels say of `what` (a key of `LABELS`), None where they say nothing."""
    return next((labels[name] for name in LABELS[what] if labels.get(name)), None)


def is_blank(value: pl.Expr) -> pl.Expr:
    """Return whether DCGM's value stands for "could not be read"."""
    ranges = [value.is_between(blank, blank + _BLANK_KINDS) for blank in _BLANKS]
    return pl.any_horizontal(*ranges)
