-- Kueue's cluster queues as they stood when last seen, by flavor.
CREATE TABLE queue (
    cluster VARCHAR NOT NULL,
    queue VARCHAR NOT NULL,
    flavor VARCHAR NOT NULL,
    workspace VARCHAR,
    pool VARCHAR,
    model VARCHAR,
    nominal_gpus DOUBLE,
    reserved_gpus DOUBLE,
    used_gpus DOUBLE,
    borrowed_gpus DOUBLE,
    pending_jobs INTEGER,
    admitted_jobs INTEGER,
    is_active BOOLEAN,
    last_seen_at TIMESTAMPTZ NOT NULL
);
