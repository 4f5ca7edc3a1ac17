"""Every table of the house: what the rooms hand each other and what the store keeps.

Units stand in the names. Ratios are 0..1, times aware UTC microseconds, intervals `[starts_at, ends_at)` with
null for "still open", money DECIMAL(18,6) US dollars. A column that is not `required` may be null, and null
means "not measured", never zero.
"""

import polars as pl

from fleet.frames import MONEY, UTC_MICROSECONDS, Column, Table

_INT = pl.Int64()
_SMALL = pl.Int32()
_REAL = pl.Float32()
_EXACT = pl.Float64()
_TEXT = pl.String()
_FLAG = pl.Boolean()
_TIME = UTC_MICROSECONDS


def _is(name: str, dtype: pl.DataType, meaning: str) -> Column:
    return Column(name, dtype, meaning, required=True)


_INTERVAL = (
    _is("starts_at", _TIME, "first moment inside"),
    Column("ends_at", _TIME, "first moment after; null = open"),
)
_GPU = _is("gpu", pl.UInt32(), "the GPU, by the store's key")
_SLICE = _is("slice", pl.UInt32(), "the MIG device, by the store's key")

GPU = Table(
    "gpu",
    "One row per physical GPU ever seen, with its last known identity.",
    (
        _GPU,
        _is("uuid", _TEXT, "the driver's UUID"),
        _is("cluster", _TEXT, "cluster it is in"),
        _is("node", _TEXT, "node it is in"),
        Column("gpu_index", _SMALL, "index on its node"),
        Column("model", _TEXT, "product name as the driver gives it"),
        Column("architecture", _TEXT, "Ampere, Hopper, ..."),
        Column("memory_mib", _INT, "total frame buffer"),
        Column("power_limit_w", _REAL, "enforced power limit"),
        Column("pci_bus_id", _TEXT, "domain:bus:device.function"),
        Column("serial", _TEXT, "board serial"),
        Column("vbios", _TEXT, "VBIOS version"),
        Column("driver", _TEXT, "driver version"),
        Column("mig_enabled", _FLAG, "MIG mode is on"),
        Column("first_seen_at", _TIME, "when a source first told of it"),
        Column("last_seen_at", _TIME, "when a source last told of it"),
    ),
    key=("uuid",),
    time="last_seen_at",
)

SLICE = Table(
    "slice",
    "One row per MIG device ever seen.",
    (
        _SLICE,
        _is("uuid", _TEXT, "the driver's UUID of the MIG device"),
        _is("gpu", pl.UInt32(), "its parent GPU"),
        Column("gpu_instance", _SMALL, "GPU instance id"),
        Column("compute_instance", _SMALL, "compute instance id"),
        Column("profile", _TEXT, "for example 1g.10gb"),
        Column("compute_slices", _SMALL, "compute slices of the GPU it holds, of 7 (of 4 on A30)"),
        Column("memory_mib", _INT, "its frame buffer"),
        Column("first_seen_at", _TIME, "when a source first told of it"),
        Column("last_seen_at", _TIME, "when a source last told of it"),
    ),
    key=("uuid",),
    time="last_seen_at",
)

_ACTIVITY = (
    Column("gr_activity", _REAL, "graphics engine active, ratio of the interval (also per MIG instance)"),
    Column("sm_activity", _REAL, "SMs with a resident warp, ratio"),
    Column("tensor_activity", _REAL, "tensor pipe active, ratio"),
    Column("dram_activity", _REAL, "memory interface active, ratio"),
)

GPU_SAMPLE = Table(
    "gpu_sample",
    "One row per GPU and moment: the wide fact table.",
    (
        _GPU,
        _is("ts", _TIME, "moment of the measurement"),
        Column("utilization", _REAL, "NVML: a kernel was running, ratio of the interval; not available under MIG"),
        Column("memory_utilization", _REAL, "NVML: memory was read or written, ratio"),
        *_ACTIVITY,
        Column("memory_used_mib", _SMALL, "frame buffer in use, reserved memory not counted"),
        Column("memory_reserved_mib", _SMALL, "frame buffer held by driver and firmware"),
        Column("power_w", _REAL, "board power"),
        Column("energy_j", _EXACT, "energy counter since the driver was loaded"),
        Column("temperature_c", _REAL, "GPU die"),
        Column("memory_temperature_c", _REAL, "HBM"),
        Column("thermal_margin_c", _REAL, "T.Limit: degrees left before the hardware slows down"),
        Column("sm_clock_mhz", _SMALL, "SM clock"),
        Column("memory_clock_mhz", _SMALL, "memory clock"),
        Column("clock_event_bits", _INT, "NVML clock event reasons, as a bit mask"),
        Column("ecc_corrected_count", _INT, "corrected errors since the driver was loaded (volatile)"),
        Column("ecc_uncorrected_count", _INT, "uncorrected errors since the driver was loaded (volatile)"),
        Column("ecc_corrected_lifetime_count", _INT, "corrected errors, aggregate"),
        Column("ecc_uncorrected_lifetime_count", _INT, "uncorrected errors, aggregate"),
        Column("rows_remapped_corrected_count", _SMALL, "rows remapped after corrected errors"),
        Column("rows_remapped_uncorrected_count", _SMALL, "rows remapped after uncorrected errors"),
        Column("is_remap_pending", _FLAG, "a row remap waits for a GPU reset"),
        Column("is_remap_failed", _FLAG, "a row remap failed"),
        Column("is_sram_threshold_exceeded", _FLAG, "SRAM uncorrectable error threshold exceeded"),
        Column("retired_page_count", _SMALL, "pages retired (before Ampere)"),
        Column("is_page_retirement_pending", _FLAG, "a page retirement waits for a reboot"),
        Column("pcie_generation", _SMALL, "current PCIe link generation"),
        Column("pcie_width", _SMALL, "current PCIe link width"),
        Column("pcie_replay_count", _INT, "PCIe replays since the driver was loaded"),
        Column("nvlink_active_count", _SMALL, "NVLink links that are up"),
        Column("nvlink_error_count", _INT, "NVLink replay, recovery and CRC errors, all links"),
        Column(
            "recovery_action",
            _SMALL,
            "NVML recovery action: 0 none, 1 reset, 2 reboot, 3 drain P2P, 4 drain and reset",
        ),
        Column("process_count", _SMALL, "compute processes with a context"),
    ),
    key=("gpu", "ts"),
    time="ts",
)

SLICE_SAMPLE = Table(
    "slice_sample",
    "One row per MIG device and moment.",
    (
        _SLICE,
        _is("ts", _TIME, "moment of the measurement"),
        *_ACTIVITY,
        Column("memory_used_mib", _SMALL, "frame buffer in use"),
        Column("process_count", _SMALL, "compute processes with a context"),
    ),
    key=("slice", "ts"),
    time="ts",
)

GPU_HOUR = Table(
    "gpu_hour",
    "Roll-up of gpu_sample by GPU and clock hour. Built by the store only.",
    (
        _GPU,
        _is("hour_at", _TIME, "start of the hour"),
        _is("sample_count", _SMALL, "samples in the hour"),
        Column("activity_mean", _REAL, "mean of the best activity signal (SM, then GR engine, then NVML), ratio"),
        Column("activity_max", _REAL, "maximum of the same"),
        Column("active_sample_count", _SMALL, "samples whose activity was above 5 %"),
        Column("known_sample_count", _SMALL, "samples that had any activity signal"),
        Column("memory_used_mib_max", _SMALL, "maximum frame buffer in use"),
        Column("power_w_mean", _REAL, "mean board power"),
        Column("temperature_c_max", _REAL, "hottest die reading"),
    ),
    key=("gpu", "hour_at"),
    time="hour_at",
)

EVENT = Table(
    "event",
    "Things that happened: XID, SXid, lost GPU, reset, boot, probe hang, exporter gone.",
    (
        _is("ts", _TIME, "when"),
        _is("cluster", _TEXT, "where"),
        _is("node", _TEXT, "where"),
        Column("gpu_uuid", _TEXT, "which GPU, where it is known"),
        Column("slice_uuid", _TEXT, "which MIG device, where it is known"),
        _is("kind", _TEXT, "xid, sxid, gpu_lost, gpu_reset, boot, probe_hang, exporter_lost, clock_jump"),
        Column("code", _SMALL, "XID or SXid number"),
        Column("pci_bus_id", _TEXT, "as the log line has it"),
        Column("message", _TEXT, "the line or the driver's words"),
        _is("source", _TEXT, "who told"),
    ),
    key=("cluster", "node", "gpu_uuid", "slice_uuid", "kind", "code", "ts"),
    time="ts",
    on_conflict="keep",
    tolerance_s=2.0,
)

CLUSTER = Table(
    "cluster",
    "Clusters known to this house.",
    (
        _is("cluster", _TEXT, "its name"),
        Column("context", _TEXT, "kubeconfig context"),
        Column("provider", _TEXT, "aws, gcp, azure, on-prem, simulator, trace"),
        Column("region", _TEXT, "provider's region"),
        Column("last_seen_at", _TIME, "when it last answered"),
    ),
    key=("cluster",),
)

NODE = Table(
    "node",
    "Nodes with their last known state.",
    (
        _is("cluster", _TEXT, "its cluster"),
        _is("node", _TEXT, "its name"),
        Column("pool", _TEXT, "node pool"),
        Column("rack", _TEXT, "rack or other shared-fate group"),
        Column("model", _TEXT, "GPU model"),
        Column("gpus", _SMALL, "physical GPUs it should have"),
        Column("cpu_milli", _INT, "CPU, thousandths of a core"),
        Column("memory_mib", _INT, "host memory"),
        Column("capacity_type", _TEXT, "on_demand, reserved, spot, owned"),
        Column("region", _TEXT, "provider's region"),
        Column("is_ready", _FLAG, "condition Ready"),
        Column("is_schedulable", _FLAG, "not cordoned"),
        Column("labels", _TEXT, "labels as a JSON object"),
        Column("taints", _TEXT, "taints as a JSON list"),
        Column("last_seen_at", _TIME, "when a source last told of it"),
    ),
    key=("cluster", "node"),
    time="last_seen_at",
)

NODE_POOL = Table(
    "node_pool",
    "Node pools: what they hold and how far they may grow.",
    (
        _is("cluster", _TEXT, "its cluster"),
        _is("pool", _TEXT, "its name"),
        Column("model", _TEXT, "GPU model"),
        Column("capacity_type", _TEXT, "on_demand, reserved, spot, owned"),
        Column("nodes", _SMALL, "nodes now"),
        Column("nodes_min", _SMALL, "never fewer"),
        Column("nodes_max", _SMALL, "never more"),
        Column("gpus_per_node", _SMALL, "GPUs a node"),
    ),
    key=("cluster", "pool"),
)

POD_ALLOCATION = Table(
    "pod_allocation",
    "Which pod held which GPU, or which part of it, from when to when.",
    (
        _is("cluster", _TEXT, "its cluster"),
        _is("namespace", _TEXT, "its namespace"),
        _is("pod", _TEXT, "its name"),
        _is("pod_uid", _TEXT, "its UID"),
        Column("container", _TEXT, "container that asked"),
        Column("workload_kind", _TEXT, "top-level owner's kind: Job, Deployment, Notebook, ..."),
        Column("workload", _TEXT, "top-level owner's name"),
        Column("workspace", _TEXT, "workspace its namespace belonged to"),
        Column("owner", _TEXT, "person or service that made it"),
        _is("gpu", pl.UInt32(), "the GPU it held"),
        Column("slice", pl.UInt32(), "the MIG device it held, where it is not the whole GPU"),
        _is("fraction", _EXACT, "part of the GPU it held, ratio"),
        *_INTERVAL,
    ),
    key=("pod_uid", "container", "gpu", "slice", "starts_at"),
    time="starts_at",
)

WORKSPACE = Table(
    "workspace",
    "Workspaces (what EGS calls slices).",
    (
        _is("workspace", _TEXT, "its name"),
        Column("owner", _TEXT, "whom to tell"),
        Column("priority", _SMALL, "low 1-100, medium 101-200, high 201-300"),
        Column("weight", _EXACT, "share of what is left over"),
        Column("manifest", _TEXT, "desired state, the Workspace manifest as JSON"),
    ),
    key=("workspace",),
)

WORKSPACE_MEMBER = Table(
    "workspace_member",
    "Which namespaces belong to which workspace, from when to when.",
    (
        _is("cluster", _TEXT, "its cluster"),
        _is("namespace", _TEXT, "the namespace"),
        _is("workspace", _TEXT, "the workspace"),
        *_INTERVAL,
    ),
    key=("cluster", "namespace", "starts_at"),
    time="starts_at",
)

QUOTA = Table(
    "quota",
    "GPUs a workspace may count on, from when to when.",
    (
        _is("cluster", _TEXT, "its cluster"),
        _is("workspace", _TEXT, "the workspace"),
        Column("pool", _TEXT, "node pool, null = any"),
        Column("model", _TEXT, "GPU model, null = any"),
        _is("gpus", _EXACT, "guaranteed GPUs"),
        Column("borrowing_gpus", _EXACT, "GPUs it may borrow on top, null = no limit"),
        *_INTERVAL,
    ),
    key=("cluster", "workspace", "pool", "model", "starts_at"),
    time="starts_at",
)

REQUEST = Table(
    "request",
    "GPU requests and where they stand.",
    (
        _is("request_id", _TEXT, "its id"),
        _is("workspace", _TEXT, "who asks"),
        Column("cluster", _TEXT, "where, null = anywhere"),
        Column("model", _TEXT, "GPU model, null = any"),
        _is("gpus", _EXACT, "how many"),
        Column("priority", _SMALL, "low 1-100, medium 101-200, high 201-300"),
        _is("submitted_at", _TIME, "when it was made"),
        Column("granted_at", _TIME, "when it was granted"),
        Column("ended_at", _TIME, "when it was given back"),
        _is("status", _TEXT, "queued, granted, ended, refused, cancelled"),
    ),
    key=("request_id",),
    time="submitted_at",
)

PRICE = Table(
    "price",
    "What a GPU-hour costs, from when to when.",
    (
        _is("model", _TEXT, "GPU model"),
        _is("capacity_type", _TEXT, "on_demand, reserved, spot, owned"),
        Column("region", _TEXT, "provider's region, null = any"),
        _is("usd_per_gpu_hour", MONEY, "amortised price of one GPU for one hour, its share of the node included"),
        Column("source", _TEXT, "where the price comes from"),
        *_INTERVAL,
    ),
    key=("model", "capacity_type", "region", "starts_at"),
    time="starts_at",
)

JOB = Table(
    "job",
    "Jobs as queues and traces record them.",
    (
        _is("job_id", _TEXT, "its id, unique in its cluster"),
        _is("cluster", _TEXT, "its cluster or trace"),
        Column("workspace", _TEXT, "who ran it"),
        Column("model", _TEXT, "GPU model asked for"),
        _is("gpus", _EXACT, "GPUs asked for; fractions where the queue knows them"),
        Column("priority", _TEXT, "queue priority or QoS class"),
        _is("submitted_at", _TIME, "when it was submitted"),
        Column("started_at", _TIME, "when it began to run; null = never, or not recorded"),
        Column("ended_at", _TIME, "when it ended; null = not yet, or not recorded"),
        Column("status", _TEXT, "pending, running, succeeded, failed, cancelled"),
        Column("duration_s", _EXACT, "run time where the trace gives that instead of start and end"),
    ),
    key=("cluster", "job_id"),
    time="submitted_at",
)

DEMAND_SAMPLE = Table(
    "demand_sample",
    "GPUs wanted and had, by workspace and moment.",
    (
        _is("cluster", _TEXT, "its cluster or trace"),
        _is("workspace", _TEXT, "who wants them"),
        Column("pool", _TEXT, "node pool, null = all"),
        Column("model", _TEXT, "GPU model, null = all"),
        _is("ts", _TIME, "moment"),
        Column("running_gpus", _EXACT, "GPUs held by running jobs"),
        Column("pending_gpus", _EXACT, "GPUs asked for by waiting jobs"),
        Column("capacity_gpus", _EXACT, "GPUs the workspace could have had"),
        Column("running_jobs", _EXACT, "running GPU jobs"),
        Column("pending_jobs", _EXACT, "waiting GPU jobs"),
    ),
    key=("cluster", "workspace", "pool", "model", "ts"),
    time="ts",
)

VERDICT = Table(
    "verdict",
    "What the analysis found, with its evidence.",
    (
        _is("made_at", _TIME, "the `now` of the analysis"),
        _is("topic", _TEXT, "idle, health, anomaly, demand, cost"),
        _is("subject_kind", _TEXT, "gpu, slice, node, pod, workload, workspace, pool, cluster, source"),
        _is("subject", _TEXT, "UUID or name; namespace/name where it has a namespace"),
        Column("cluster", _TEXT, "its cluster"),
        Column("node", _TEXT, "its node"),
        Column("workspace", _TEXT, "who holds it"),
        Column("workload", _TEXT, "kind/namespace/name of the top-level owner that holds it"),
        _is(
            "state",
            _TEXT,
            "idle: active, idle, idle_held, unknown; health: healthy, degraded, failing, failed, unknown",
        ),
        _is("severity", _TEXT, "ok, info, warning, critical, unknown"),
        _is("rule", _TEXT, "the rule that spoke"),
        Column("action", _TEXT, "what to do: none, reclaim, fence, reset_gpu, reboot_node, drain, inspect, ..."),
        Column("confidence", _EXACT, "0..1, null where the rule has none"),
        Column("since", _TIME, "when the state began, as far as the evidence goes back"),
        Column("until", _TIME, "end of the evidence"),
        Column("coverage", _EXACT, "samples had over samples expected, ratio"),
        Column("gpu_hours", _EXACT, "GPU-hours at stake"),
        Column("cost_usd", MONEY, "money at stake; null = unpriced"),
        _is("evidence", _TEXT, "the rows and numbers that decided, as a JSON object"),
    ),
    key=("made_at", "topic", "subject_kind", "subject", "rule"),
    time="made_at",
    on_conflict="keep",
)

FORECAST = Table(
    "forecast",
    "Forecast demand with its intervals and its record.",
    (
        _is("made_at", _TIME, "the `now` of the forecast"),
        _is("cluster", _TEXT, "series: cluster, or * for all"),
        _is("workspace", _TEXT, "series: workspace, or * for all"),
        Column("pool", _TEXT, "series: node pool, null = all"),
        Column("model", _TEXT, "series: GPU model, null = all"),
        _is("ts", _TIME, "the hour forecast"),
        _is("forecaster", _TEXT, "who forecast it"),
        Column("gpus", _EXACT, "median GPUs wanted"),
        Column("gpus_lower_80", _EXACT, "10 % quantile"),
        Column("gpus_upper_80", _EXACT, "90 % quantile"),
        Column("gpus_lower_95", _EXACT, "2.5 % quantile"),
        Column("gpus_upper_95", _EXACT, "97.5 % quantile"),
        Column("capacity_gpus", _EXACT, "GPUs there are, as last seen"),
        Column("mase", _EXACT, "back-test error over that of the last value (below 1 is better)"),
        Column("coverage_80", _EXACT, "share of back-test points inside the 80 % interval"),
        Column("note", _TEXT, "why it should be trusted less, where it should"),
    ),
    key=("made_at", "cluster", "workspace", "pool", "model", "ts"),
    time="made_at",
    on_conflict="keep",
)

COST_LINE = Table(
    "cost_line",
    "The ledger: GPU-seconds and money by GPU, interval, holder and category; parts sum to the whole.",
    (
        _GPU,
        _is("starts_at", _TIME, "start of the interval"),
        _is("ends_at", _TIME, "end of the interval"),
        Column("cluster", _TEXT, "its cluster"),
        Column("workspace", _TEXT, "who pays; null = nobody held it"),
        Column("namespace", _TEXT, "namespace of the pod"),
        Column("workload", _TEXT, "kind/namespace/name of the top-level owner"),
        Column("pod_uid", _TEXT, "the pod"),
        _is("category", _TEXT, "used, allocated_idle, unallocated, unhealthy, unknown"),
        _is("gpu_seconds", _EXACT, "quantity"),
        Column("usd_per_gpu_hour", MONEY, "rate; null = unpriced"),
        Column("cost_usd", MONEY, "amount; null = unpriced"),
    ),
    key=("gpu", "starts_at", "pod_uid", "category"),
    time="starts_at",
)

PLAN = Table(
    "plan",
    "Plans made, append-only.",
    (
        _is("plan_id", _TEXT, "its id"),
        _is("made_at", _TIME, "when"),
        _is("policy", _TEXT, "the policy it was made by, as JSON"),
        _is("move_count", _SMALL, "moves in it"),
        Column("saving_usd_per_hour", MONEY, "what its moves save an hour; null = unpriced"),
        Column("held_back", _TEXT, "verdicts that led to no move, with the reason, as JSON"),
    ),
    key=("plan_id",),
    time="made_at",
    on_conflict="keep",
)

MOVE = Table(
    "move",
    "Moves of plans, append-only.",
    (
        _is("plan_id", _TEXT, "its plan"),
        _is("move_id", _TEXT, "its id"),
        _is("ordinal", _SMALL, "place in the plan, from 0"),
        _is("kind", _TEXT, "what is done"),
        _is("cluster", _TEXT, "where"),
        _is("target", _TEXT, "kind/namespace/name of the object"),
        _is("reason", _TEXT, "why, in words"),
        _is("body", _TEXT, "the whole move as JSON"),
    ),
    key=("move_id",),
    on_conflict="keep",
)

OUTCOME = Table(
    "outcome",
    "What became of moves, append-only: one row before and one after each attempt.",
    (
        _is("move_id", _TEXT, "the move"),
        _is("ts", _TIME, "when"),
        _is("stage", _TEXT, "intended, applied, refused, failed, undone"),
        _is("is_dry_run", _FLAG, "nothing was changed on purpose"),
        Column("actor", _TEXT, "who let it happen"),
        Column("detail", _TEXT, "the reason or the server's answer"),
        Column("prior", _TEXT, "the object before, as JSON"),
    ),
    key=("move_id", "ts", "stage"),
    time="ts",
    on_conflict="keep",
)

WATERMARK = Table(
    "watermark",
    "How far each source has been read.",
    (
        _is("source", _TEXT, "the source"),
        _is("ts", _TIME, "everything before this moment is stored"),
    ),
    key=("source",),
)

SOURCE_FAILURE = Table(
    "source_failure",
    "What a source could not give: failures and counted rejections, never silent.",
    (
        _is("ts", _TIME, "when it was noticed"),
        _is("source", _TEXT, "the source"),
        _is("kind", _TEXT, "failed or rejected"),
        _is("place", _TEXT, "file, table, column or address"),
        _is("reason", _TEXT, "why"),
        _is("row_count", _INT, "rows concerned; 0 for a failure of the whole source"),
        Column("example", _TEXT, "one of them"),
    ),
    key=("source", "kind", "place", "reason", "ts"),
    time="ts",
    on_conflict="keep",
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        CLUSTER, NODE, NODE_POOL, GPU, SLICE, GPU_SAMPLE, SLICE_SAMPLE, GPU_HOUR, EVENT, POD_ALLOCATION,
        WORKSPACE, WORKSPACE_MEMBER, QUOTA, REQUEST, PRICE, JOB, DEMAND_SAMPLE, VERDICT, FORECAST, COST_LINE,
        PLAN, MOVE, OUTCOME, WATERMARK, SOURCE_FAILURE,
    )
}  # fmt: skip
