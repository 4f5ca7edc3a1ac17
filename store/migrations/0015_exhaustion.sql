-- How likely demand is to pass a quota or a capacity within a window.
CREATE TABLE exhaustion (
    made_at TIMESTAMPTZ NOT NULL,
    cluster VARCHAR NOT NULL,
    workspace VARCHAR NOT NULL,
    pool VARCHAR,
    model VARCHAR,
    window_hours INTEGER NOT NULL,
    limit_kind VARCHAR NOT NULL,
    limit_gpus DOUBLE NOT NULL,
    probability DOUBLE,
    peak_gpus DOUBLE,
    peak_gpus_upper_80 DOUBLE,
    earliest_at TIMESTAMPTZ,
    likely_at TIMESTAMPTZ,
    note VARCHAR
);
