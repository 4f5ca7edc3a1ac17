-- How likely demand is to pass a quota or a capacity within a window.
CREATE TABLE exhaustion (
    made_at TIMESTAMPTZ NOT NULL,
    cluster VARCHAR NOT NULL,
    workspace VARCHAR NOT NULL,
    pool VARCHAR,
    model VARCHAR,
    window_h INTEGER NOT NULL,
    limit_kind VARCHAR NOT NULL,
    limit_gpus DOUBLE NOT NULL,
    probability DOUBLE,
    peak_gpus_p50 DOUBLE,
    peak_gpus_p90 DOUBLE,
    earliest_at TIMESTAMPTZ,
    likely_at TIMESTAMPTZ,
    note VARCHAR
);
