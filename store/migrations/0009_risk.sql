-- How likely each GPU and node is to fail: one row a subject, the latest analysis.
CREATE TABLE risk (
    subject_kind VARCHAR NOT NULL,
    subject VARCHAR NOT NULL,
    cluster VARCHAR NOT NULL,
    node VARCHAR NOT NULL,
    made_at TIMESTAMPTZ NOT NULL,
    risk_1d DOUBLE,
    risk_7d DOUBLE,
    risk_30d DOUBLE,
    base_1d DOUBLE,
    base_7d DOUBLE,
    base_30d DOUBLE,
    alert_line DOUBLE,
    fault_count BIGINT,
    last_fault_at TIMESTAMPTZ,
    basis VARCHAR NOT NULL
);
