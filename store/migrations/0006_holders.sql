-- Who was seen to hold which device: what exporters' labels, the kubelet and processes tell, before it is joined.
CREATE TABLE holder (
    cluster VARCHAR NOT NULL,
    node VARCHAR NOT NULL,
    gpu_uuid VARCHAR NOT NULL,
    slice_uuid VARCHAR,
    namespace VARCHAR NOT NULL,
    pod VARCHAR NOT NULL,
    container VARCHAR,
    pod_uid VARCHAR,
    share_count INTEGER,
    source VARCHAR NOT NULL,
    starts_at TIMESTAMPTZ NOT NULL,
    last_seen_at TIMESTAMPTZ,
    ends_at TIMESTAMPTZ
);
