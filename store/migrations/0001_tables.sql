-- The first schema: what is measured, what there is, what was found and done. Keys are kept by the appends,

-- not by indexes: an index on the samples would cost more than all else.

CREATE TABLE migration (number INTEGER NOT NULL, name VARCHAR NOT NULL, applied_at TIMESTAMPTZ NOT NULL);

CREATE TABLE cluster (
    cluster VARCHAR NOT NULL,
    context VARCHAR,
    provider VARCHAR,
    region VARCHAR,
    last_seen_at TIMESTAMPTZ
);

CREATE TABLE node (
    cluster VARCHAR NOT NULL,
    node VARCHAR NOT NULL,
    pool VARCHAR,
    rack VARCHAR,
    model VARCHAR,
    gpus INTEGER,
    cpu_milli BIGINT,
    memory_mib BIGINT,
    capacity_type VARCHAR,
    region VARCHAR,
    is_ready BOOLEAN,
    is_schedulable BOOLEAN,
    labels VARCHAR,
    taints VARCHAR,
    last_seen_at TIMESTAMPTZ
);

CREATE TABLE node_pool (
    cluster VARCHAR NOT NULL,
    pool VARCHAR NOT NULL,
    model VARCHAR,
    capacity_type VARCHAR,
    nodes INTEGER,
    nodes_min INTEGER,
    nodes_max INTEGER,
    gpus_per_node INTEGER
);

CREATE TABLE gpu (
    gpu UINTEGER NOT NULL,
    uuid VARCHAR NOT NULL,
    cluster VARCHAR NOT NULL,
    node VARCHAR NOT NULL,
    gpu_index INTEGER,
    model VARCHAR,
    architecture VARCHAR,
    memory_mib BIGINT,
    power_limit_w FLOAT,
    pci_bus_id VARCHAR,
    serial VARCHAR,
    vbios VARCHAR,
    driver VARCHAR,
    mig_enabled BOOLEAN,
    first_seen_at TIMESTAMPTZ,
    last_seen_at TIMESTAMPTZ
);

CREATE TABLE slice (
    slice UINTEGER NOT NULL,
    uuid VARCHAR NOT NULL,
    gpu UINTEGER NOT NULL,
    gpu_instance INTEGER,
    compute_instance INTEGER,
    profile VARCHAR,
    compute_slices INTEGER,
    memory_mib BIGINT,
    first_seen_at TIMESTAMPTZ,
    last_seen_at TIMESTAMPTZ
);

CREATE TABLE gpu_sample (
    gpu UINTEGER NOT NULL,
    ts TIMESTAMPTZ NOT NULL,
    utilization FLOAT,
    memory_utilization FLOAT,
    gr_activity FLOAT,
    sm_activity FLOAT,
    tensor_activity FLOAT,
    dram_activity FLOAT,
    memory_used_mib INTEGER,
    memory_reserved_mib INTEGER,
    power_w FLOAT,
    energy_j DOUBLE,
    temperature_c FLOAT,
    memory_temperature_c FLOAT,
    thermal_margin_c FLOAT,
    sm_clock_mhz INTEGER,
    memory_clock_mhz INTEGER,
    clock_event_bits BIGINT,
    ecc_corrected_count BIGINT,
    ecc_uncorrected_count BIGINT,
    ecc_corrected_lifetime_count BIGINT,
    ecc_uncorrected_lifetime_count BIGINT,
    rows_remapped_corrected_count INTEGER,
    rows_remapped_uncorrected_count INTEGER,
    is_remap_pending BOOLEAN,
    is_remap_failed BOOLEAN,
    is_sram_threshold_exceeded BOOLEAN,
    retired_page_count INTEGER,
    is_page_retirement_pending BOOLEAN,
    pcie_generation INTEGER,
    pcie_width INTEGER,
    pcie_replay_count BIGINT,
    nvlink_active_count INTEGER,
    nvlink_error_count BIGINT,
    recovery_action INTEGER,
    process_count INTEGER
);

CREATE TABLE slice_sample (
    slice UINTEGER NOT NULL,
    ts TIMESTAMPTZ NOT NULL,
    gr_activity FLOAT,
    sm_activity FLOAT,
    tensor_activity FLOAT,
    dram_activity FLOAT,
    memory_used_mib INTEGER,
    process_count INTEGER
);

CREATE TABLE gpu_hour (
    gpu UINTEGER NOT NULL,
    hour_at TIMESTAMPTZ NOT NULL,
    sample_count INTEGER NOT NULL,
    activity_mean FLOAT,
    activity_max FLOAT,
    active_sample_count INTEGER,
    known_sample_count INTEGER,
    memory_used_mib_max INTEGER,
    power_w_mean FLOAT,
    temperature_c_max FLOAT
);

CREATE TABLE event (
    ts TIMESTAMPTZ NOT NULL,
    cluster VARCHAR NOT NULL,
    node VARCHAR NOT NULL,
    gpu_uuid VARCHAR,
    slice_uuid VARCHAR,
    kind VARCHAR NOT NULL,
    code INTEGER,
    pci_bus_id VARCHAR,
    message VARCHAR,
    source VARCHAR NOT NULL
);

CREATE TABLE pod_allocation (
    cluster VARCHAR NOT NULL,
    namespace VARCHAR NOT NULL,
    pod VARCHAR NOT NULL,
    pod_uid VARCHAR NOT NULL,
    container VARCHAR,
    workload_kind VARCHAR,
    workload VARCHAR,
    workspace VARCHAR,
    owner VARCHAR,
    gpu UINTEGER NOT NULL,
    slice UINTEGER,
    fraction DOUBLE NOT NULL,
    starts_at TIMESTAMPTZ NOT NULL,
    ends_at TIMESTAMPTZ
);

CREATE TABLE workspace (
    workspace VARCHAR NOT NULL,
    owner VARCHAR,
    priority INTEGER,
    weight DOUBLE,
    manifest VARCHAR
);

CREATE TABLE workspace_member (
    cluster VARCHAR NOT NULL,
    namespace VARCHAR NOT NULL,
    workspace VARCHAR NOT NULL,
    starts_at TIMESTAMPTZ NOT NULL,
    ends_at TIMESTAMPTZ
);

CREATE TABLE quota (
    cluster VARCHAR NOT NULL,
    workspace VARCHAR NOT NULL,
    pool VARCHAR,
    model VARCHAR,
    gpus DOUBLE NOT NULL,
    borrowing_gpus DOUBLE,
    starts_at TIMESTAMPTZ NOT NULL,
    ends_at TIMESTAMPTZ
);

CREATE TABLE request (
    request_id VARCHAR NOT NULL,
    workspace VARCHAR NOT NULL,
    cluster VARCHAR,
    model VARCHAR,
    gpus DOUBLE NOT NULL,
    priority INTEGER,
    submitted_at TIMESTAMPTZ NOT NULL,
    granted_at TIMESTAMPTZ,
    ended_at TIMESTAMPTZ,
    status VARCHAR NOT NULL
);

CREATE TABLE price (
    model VARCHAR NOT NULL,
    capacity_type VARCHAR NOT NULL,
    region VARCHAR,
    usd_per_gpu_hour DECIMAL(18, 6) NOT NULL,
    source VARCHAR,
    starts_at TIMESTAMPTZ NOT NULL,
    ends_at TIMESTAMPTZ
);

CREATE TABLE job (
    job_id VARCHAR NOT NULL,
    cluster VARCHAR NOT NULL,
    workspace VARCHAR,
    model VARCHAR,
    gpus DOUBLE NOT NULL,
    priority VARCHAR,
    submitted_at TIMESTAMPTZ NOT NULL,
    started_at TIMESTAMPTZ,
    ended_at TIMESTAMPTZ,
    status VARCHAR,
    duration_s DOUBLE
);

CREATE TABLE demand_sample (
    cluster VARCHAR NOT NULL,
    workspace VARCHAR NOT NULL,
    pool VARCHAR,
    model VARCHAR,
    ts TIMESTAMPTZ NOT NULL,
    running_gpus DOUBLE,
    pending_gpus DOUBLE,
    capacity_gpus DOUBLE,
    running_jobs DOUBLE,
    pending_jobs DOUBLE
);

CREATE TABLE verdict (
    made_at TIMESTAMPTZ NOT NULL,
    topic VARCHAR NOT NULL,
    subject_kind VARCHAR NOT NULL,
    subject VARCHAR NOT NULL,
    cluster VARCHAR,
    node VARCHAR,
    workspace VARCHAR,
    workload VARCHAR,
    state VARCHAR NOT NULL,
    severity VARCHAR NOT NULL,
    rule VARCHAR NOT NULL,
    action VARCHAR,
    confidence DOUBLE,
    since TIMESTAMPTZ,
    until TIMESTAMPTZ,
    coverage DOUBLE,
    gpu_hours DOUBLE,
    cost_usd DECIMAL(18, 6),
    evidence VARCHAR NOT NULL
);

CREATE TABLE forecast (
    made_at TIMESTAMPTZ NOT NULL,
    cluster VARCHAR NOT NULL,
    workspace VARCHAR NOT NULL,
    pool VARCHAR,
    model VARCHAR,
    ts TIMESTAMPTZ NOT NULL,
    forecaster VARCHAR NOT NULL,
    gpus DOUBLE,
    gpus_lower_80 DOUBLE,
    gpus_upper_80 DOUBLE,
    gpus_lower_95 DOUBLE,
    gpus_upper_95 DOUBLE,
    capacity_gpus DOUBLE,
    mase DOUBLE,
    coverage_80 DOUBLE,
    note VARCHAR
);

CREATE TABLE cost_line (
    gpu UINTEGER NOT NULL,
    starts_at TIMESTAMPTZ NOT NULL,
    ends_at TIMESTAMPTZ NOT NULL,
    cluster VARCHAR,
    workspace VARCHAR,
    namespace VARCHAR,
    workload VARCHAR,
    pod_uid VARCHAR,
    category VARCHAR NOT NULL,
    gpu_seconds DOUBLE NOT NULL,
    usd_per_gpu_hour DECIMAL(18, 6),
    cost_usd DECIMAL(18, 6)
);

CREATE TABLE plan (
    plan_id VARCHAR NOT NULL,
    made_at TIMESTAMPTZ NOT NULL,
    policy VARCHAR NOT NULL,
    move_count INTEGER NOT NULL,
    saving_usd_per_hour DECIMAL(18, 6),
    held_back VARCHAR
);

CREATE TABLE move (
    plan_id VARCHAR NOT NULL,
    move_id VARCHAR NOT NULL,
    ordinal INTEGER NOT NULL,
    kind VARCHAR NOT NULL,
    cluster VARCHAR NOT NULL,
    target VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    body VARCHAR NOT NULL
);

CREATE TABLE outcome (
    move_id VARCHAR NOT NULL,
    ts TIMESTAMPTZ NOT NULL,
    stage VARCHAR NOT NULL,
    is_dry_run BOOLEAN NOT NULL,
    actor VARCHAR,
    detail VARCHAR,
    prior VARCHAR
);

CREATE TABLE watermark (
    source VARCHAR NOT NULL,
    ts TIMESTAMPTZ NOT NULL
);

CREATE TABLE source_failure (
    ts TIMESTAMPTZ NOT NULL,
    source VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    place VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    row_count BIGINT NOT NULL,
    example VARCHAR
);
