-- Which source gives samples of which GPU: what is expected of a source, to know how much of it came.
CREATE TABLE source_gpu (
    source VARCHAR NOT NULL,
    gpu UINTEGER NOT NULL,
    first_seen_at TIMESTAMPTZ NOT NULL
);
