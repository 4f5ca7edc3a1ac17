-- How wrong each forecaster was, series by series: shown beside every forecast, and reused for a day.
CREATE TABLE forecast_score (
    made_at TIMESTAMPTZ NOT NULL,
    cluster VARCHAR NOT NULL,
    workspace VARCHAR NOT NULL,
    pool VARCHAR,
    model VARCHAR,
    horizon_hours INTEGER NOT NULL,
    forecaster VARCHAR NOT NULL,
    is_used BOOLEAN NOT NULL,
    mase DOUBLE,
    mase_seasonal DOUBLE,
    mae_gpus DOUBLE,
    wql DOUBLE,
    coverage_80 DOUBLE,
    coverage_95 DOUBLE,
    hour_count DOUBLE,
    stretch_95 DOUBLE,
    stretch_80 DOUBLE,
    stretch_50 DOUBLE
);
