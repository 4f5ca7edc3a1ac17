-- The ledger: lines that no GPU has (host, storage, network, overhead), slices, corrections, the month that pays.
ALTER TABLE cost_line ALTER COLUMN gpu DROP NOT NULL;
ALTER TABLE cost_line ADD COLUMN slice UINTEGER;
ALTER TABLE cost_line ADD COLUMN node VARCHAR;
ALTER TABLE cost_line ADD COLUMN resource VARCHAR;
ALTER TABLE cost_line ADD COLUMN adjustment INTEGER;
ALTER TABLE cost_line ADD COLUMN booked_at TIMESTAMPTZ;
ALTER TABLE cost_line ADD COLUMN billed_at TIMESTAMPTZ;
