-- The ledger by day, so that views of long windows need not add up every line; made of the lines that are there.
CREATE TABLE cost_day (
    day_at TIMESTAMPTZ NOT NULL,
    gpu UINTEGER,
    cluster VARCHAR,
    node VARCHAR,
    workspace VARCHAR,
    namespace VARCHAR,
    workload VARCHAR,
    pod_uid VARCHAR,
    category VARCHAR NOT NULL,
    resource VARCHAR,
    gpu_us BIGINT NOT NULL,
    cost_usd DECIMAL(18, 6),
    unpriced_us BIGINT NOT NULL
);

INSERT INTO cost_day BY NAME
SELECT make_timestamptz(epoch_us(starts_at) // 86400000000 * 86400000000) AS day_at, gpu, cluster, node, workspace,
    namespace, workload, pod_uid, category, resource,
    sum(round(gpu_seconds * 1e6)::BIGINT)::BIGINT AS gpu_us,
    sum(cost_usd)::DECIMAL(18, 6) AS cost_usd,
    coalesce(sum(round(gpu_seconds * 1e6)::BIGINT) FILTER (WHERE cost_usd IS NULL), 0)::BIGINT AS unpriced_us
FROM cost_line
GROUP BY ALL;
