-- Pods that ask for GPUs, by their UID, and more of what the API server tells of nodes.
CREATE TABLE pod (
    cluster VARCHAR NOT NULL,
    namespace VARCHAR NOT NULL,
    pod VARCHAR NOT NULL,
    pod_uid VARCHAR NOT NULL,
    node VARCHAR,
    workload_kind VARCHAR,
    workload VARCHAR,
    workspace VARCHAR,
    owner VARCHAR,
    gpus DOUBLE,
    resources VARCHAR,
    devices VARCHAR,
    phase VARCHAR,
    created_at TIMESTAMPTZ NOT NULL,
    starts_at TIMESTAMPTZ,
    ends_at TIMESTAMPTZ
);

ALTER TABLE node ADD COLUMN provider VARCHAR;
ALTER TABLE node ADD COLUMN zone VARCHAR;
ALTER TABLE node ADD COLUMN instance_type VARCHAR;
ALTER TABLE node ADD COLUMN conditions VARCHAR;
ALTER TABLE node ADD COLUMN capacity VARCHAR;
ALTER TABLE node ADD COLUMN allocatable VARCHAR;
