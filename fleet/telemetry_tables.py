"""What is measured: GPUs, MIG devices, their samples and events."""

import polars as pl

from fleet.columns import EXACT, FLAG, GPU_KEY, INT, REAL, SLICE_KEY, SMALL, TEXT, TIME, needed
from fleet.frames import Column, Table

GPU = Table(
    "gpu",
    "One row per physical GPU ever seen, with its last known identity.",
    (
        GPU_KEY,
        needed("uuid", TEXT, "the driver's UUID"),
        needed("cluster", TEXT, "cluster it is in"),
        needed("node", TEXT, "node it is in"),
        Column("gpu_index", SMALL, "index on its node"),
        Column("model", TEXT, "product name as the driver gives it"),
        Column("architecture", TEXT, "Ampere, Hopper, ..."),
        Column("memory_mib", INT, "total frame buffer"),
        Column("power_limit_w", REAL, "enforced power limit"),
        Column("pci_bus_id", TEXT, "domain:bus:device.function"),
        Column("serial", TEXT, "board serial"),
        Column("board_part_number", TEXT, "board part number"),
        Column("minor_number", SMALL, "N of /dev/nvidiaN"),
        Column("vbios", TEXT, "VBIOS version"),
        Column("driver", TEXT, "driver version"),
        Column("mig_enabled", FLAG, "MIG mode is on"),
        Column("sm_clock_max_mhz", SMALL, "highest SM clock it may have"),
        Column("memory_clock_max_mhz", SMALL, "highest memory clock it may have"),
        Column("pcie_generation_max", SMALL, "highest PCIe generation that GPU and slot both know"),
        Column("pcie_width_max", SMALL, "most PCIe lanes that GPU and slot both have"),
        Column("nvlink_count", SMALL, "NVLink links it has; on a board without a bridge none of them comes up"),
        Column("fabric_state", TEXT, "NVLink fabric registration: not_supported, not_started, in_progress, completed"),
        Column("fabric_status", SMALL, "NVML return code of a completed fabric registration; 0 is success"),
        Column("fabric_cluster_uuid", TEXT, "NVLink fabric it is in"),
        Column("fabric_clique", INT, "clique in that fabric: GPUs that reach each other"),
        Column("first_seen_at", TIME, "when a source first told of it"),
        Column("last_seen_at", TIME, "when a source last told of it"),
    ),
    key=("uuid",),
    time="last_seen_at",
)

SLICE = Table(
    "slice",
    "One row per MIG device ever seen.",
    (
        SLICE_KEY,
        needed("uuid", TEXT, "the driver's UUID of the MIG device"),
        needed("gpu", pl.UInt32(), "its parent GPU"),
        Column("gpu_instance", SMALL, "GPU instance id"),
        Column("compute_instance", SMALL, "compute instance id"),
        Column("profile", TEXT, "for example 1g.10gb"),
        Column("compute_slices", SMALL, "compute slices of the GPU it holds, of 7 (of 4 on A30)"),
        Column("memory_mib", INT, "its frame buffer"),
        Column("first_seen_at", TIME, "when a source first told of it"),
        Column("last_seen_at", TIME, "when a source last told of it"),
    ),
    key=("uuid",),
    time="last_seen_at",
)

_ACTIVITY = (
    Column("gr_activity", REAL, "graphics engine active, ratio of the interval (also per MIG instance)"),
    Column("sm_activity", REAL, "SMs with a resident warp, ratio"),
    Column("tensor_activity", REAL, "tensor pipe active, ratio"),
    Column("dram_activity", REAL, "memory interface active, ratio"),
)

GPU_SAMPLE = Table(
    "gpu_sample",
    "One row per GPU and moment: the wide fact table.",
    (
        GPU_KEY,
        needed("ts", TIME, "moment of the measurement"),
        Column("utilization", REAL, "NVML: a kernel was running, ratio of the interval; not available under MIG"),
        Column("memory_utilization", REAL, "NVML: memory was read or written, ratio"),
        *_ACTIVITY,
        Column("memory_used_mib", SMALL, "frame buffer in use, reserved memory not counted"),
        Column("memory_reserved_mib", SMALL, "frame buffer held by driver and firmware"),
        Column("power_w", REAL, "board power"),
        Column("energy_j", EXACT, "energy counter since the driver was loaded"),
        Column("temperature_c", REAL, "GPU die"),
        Column("memory_temperature_c", REAL, "HBM"),
        Column("thermal_margin_c", REAL, "T.Limit: degrees left before the hardware slows down"),
        Column("sm_clock_mhz", SMALL, "SM clock"),
        Column("memory_clock_mhz", SMALL, "memory clock"),
        Column("performance_state", SMALL, "P-state, 0 the fastest"),
        Column("clock_event_bits", INT, "NVML clock event reasons, as a bit mask"),
        Column("slowed_by_power_cap_s", EXACT, "time slowed by the power limit since the driver was loaded"),
        Column("slowed_by_sync_boost_s", EXACT, "time slowed by its sync boost group, as above"),
        Column("slowed_by_software_thermal_s", EXACT, "time slowed by the driver for heat, as above"),
        Column("slowed_by_hardware_thermal_s", EXACT, "time slowed by the hardware for heat, as above"),
        Column("slowed_by_power_brake_s", EXACT, "time slowed by the power brake signal, as above"),
        Column("ecc_corrected_count", INT, "corrected errors since the driver was loaded (volatile)"),
        Column("ecc_uncorrected_count", INT, "uncorrected errors since the driver was loaded (volatile)"),
        Column("ecc_corrected_lifetime_count", INT, "corrected errors, aggregate"),
        Column("ecc_uncorrected_lifetime_count", INT, "uncorrected errors, aggregate"),
        Column("ecc_dram_corrected_count", INT, "corrected errors in DRAM, volatile"),
        Column("ecc_dram_uncorrected_count", INT, "uncorrected errors in DRAM, volatile"),
        Column("ecc_dram_corrected_lifetime_count", INT, "corrected errors in DRAM, aggregate"),
        Column("ecc_dram_uncorrected_lifetime_count", INT, "uncorrected errors in DRAM, aggregate"),
        Column("ecc_sram_corrected_count", INT, "corrected errors in SRAM, volatile"),
        Column("ecc_sram_uncorrected_count", INT, "uncorrected errors in SRAM, volatile"),
        Column("ecc_sram_corrected_lifetime_count", INT, "corrected errors in SRAM, aggregate"),
        Column("ecc_sram_uncorrected_lifetime_count", INT, "uncorrected errors in SRAM, aggregate"),
        Column(
            "ecc_sram_unique_uncorrected_lifetime_count", INT, "uncorrected SRAM errors, each place once, aggregate"
        ),
        Column("rows_remapped_corrected_count", SMALL, "rows remapped after corrected errors"),
        Column("rows_remapped_uncorrected_count", SMALL, "rows remapped after uncorrected errors"),
        Column("is_remap_pending", FLAG, "a row remap waits for a GPU reset"),
        Column("is_remap_failed", FLAG, "a row remap failed"),
        Column("is_sram_threshold_exceeded", FLAG, "SRAM uncorrectable error threshold exceeded"),
        Column("retired_page_count", SMALL, "pages retired (before Ampere)"),
        Column("is_page_retirement_pending", FLAG, "a page retirement waits for a reboot"),
        Column("pcie_generation", SMALL, "current PCIe link generation"),
        Column("pcie_width", SMALL, "current PCIe link width"),
        Column("pcie_replay_count", INT, "PCIe replays since the driver was loaded"),
        Column("nvlink_active_count", SMALL, "NVLink links that are up"),
        Column("nvlink_error_count", INT, "NVLink replay, recovery and CRC errors, all links"),
        Column("fabric_health_bits", INT, "NVLink fabric health, NVML's bit mask"),
        Column(
            "recovery_action",
            SMALL,
            "NVML recovery action: 0 none, 1 reset, 2 reboot, 3 drain P2P, 4 drain and reset, 5 recover IMEX domain,"
            " 6 bus reset, 7 system reboot",
        ),
        Column("process_count", SMALL, "compute processes with a context"),
    ),
    key=("gpu", "ts"),
    time="ts",
)

SLICE_SAMPLE = Table(
    "slice_sample",
    "One row per MIG device and moment.",
    (
        SLICE_KEY,
        needed("ts", TIME, "moment of the measurement"),
        *_ACTIVITY,
        Column("memory_used_mib", SMALL, "frame buffer in use"),
        Column("process_count", SMALL, "compute processes with a context"),
    ),
    key=("slice", "ts"),
    time="ts",
)

GPU_HOUR = Table(
    "gpu_hour",
    "Roll-up of gpu_sample by GPU and clock hour. Built by the store only.",
    (
        GPU_KEY,
        needed("hour_at", TIME, "start of the hour"),
        needed("sample_count", SMALL, "samples in the hour"),
        Column("activity_mean", REAL, "mean of the best activity signal (SM, then GR engine, then NVML), ratio"),
        Column("activity_max", REAL, "maximum of the same, ratio"),
        Column("active_sample_count", SMALL, "samples with any of the activity signals above 5 %"),
        Column("known_sample_count", SMALL, "samples that had any activity signal"),
        Column("memory_used_mib_max", SMALL, "maximum frame buffer in use"),
        Column("power_w_mean", REAL, "mean board power"),
        Column("temperature_c_max", REAL, "hottest die reading"),
        Column(
            "energy_j", EXACT, "energy by the counter, across its resets; null where no two readings an hour apart tell"
        ),
    ),
    key=("gpu", "hour_at"),
    time="hour_at",
)

EVENT = Table(
    "event",
    "Things that happened: XID, SXid, lost GPU, reset, boot, probe hang, exporter gone.",
    (
        needed("ts", TIME, "when"),
        needed("cluster", TEXT, "where"),
        needed("node", TEXT, "where"),
        Column("gpu_uuid", TEXT, "which GPU, where it is known"),
        Column("slice_uuid", TEXT, "which MIG device, where it is known"),
        needed(
            "kind",
            TEXT,
            "xid, sxid, gpu_lost, gpu_recovered, gpu_reset, boot, probe_hang, exporter_lost, clock_jump; of the driver"
            " also ecc_double_bit, ecc_single_bit_storm, dram_retirement, dram_retirement_failed, poison_contained,"
            " poison_fatal, gpu_unavailable, recovery_action, mig_config",
        ),
        Column("code", SMALL, "XID or SXid number"),
        Column("pci_bus_id", TEXT, "as the driver or the log line has it"),
        Column("gpu_instance", SMALL, "GPU instance of a MIG GPU that it concerns"),
        Column("message", TEXT, "the driver's words, or the log's lines about it, one below the other"),
        needed("source", TEXT, "who told"),
    ),
    key=("cluster", "node", "gpu_uuid", "slice_uuid", "kind", "code", "ts"),
    time="ts",
    on_conflict="keep",
    tolerance_s=2.0,
    stands_in=("gpu_uuid", "pci_bus_id"),
    richest="message",
)
