-- Months that are closed, budgets, what is charged beside GPUs, and the work that money bought.
CREATE TABLE cost_month (
    month_at TIMESTAMPTZ NOT NULL,
    closed_at TIMESTAMPTZ NOT NULL,
    line_count BIGINT NOT NULL,
    gpu_seconds DOUBLE NOT NULL,
    cost_usd DECIMAL(18, 6)
);

CREATE TABLE budget (
    workspace VARCHAR NOT NULL,
    starts_at TIMESTAMPTZ NOT NULL,
    ends_at TIMESTAMPTZ,
    usd_per_month DECIMAL(18, 6),
    gpu_hours_per_month DOUBLE,
    thresholds VARCHAR,
    at_limit VARCHAR
);

CREATE TABLE charge (
    charge_id VARCHAR NOT NULL,
    cluster VARCHAR NOT NULL,
    resource VARCHAR NOT NULL,
    namespace VARCHAR,
    workspace VARCHAR,
    starts_at TIMESTAMPTZ NOT NULL,
    ends_at TIMESTAMPTZ NOT NULL,
    quantity DOUBLE,
    unit VARCHAR,
    cost_usd DECIMAL(18, 6) NOT NULL,
    source VARCHAR
);

CREATE TABLE work_done (
    cluster VARCHAR NOT NULL,
    namespace VARCHAR NOT NULL,
    workload VARCHAR NOT NULL,
    served_model VARCHAR,
    starts_at TIMESTAMPTZ NOT NULL,
    ends_at TIMESTAMPTZ NOT NULL,
    request_count DOUBLE,
    prompt_tokens DOUBLE,
    cached_tokens DOUBLE,
    generated_tokens DOUBLE,
    prefill_s DOUBLE,
    decode_s DOUBLE,
    training_steps DOUBLE
);
