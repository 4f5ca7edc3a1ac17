-- What pods ask of their host, and their labels: for whole bills and for views by label.
ALTER TABLE pod ADD COLUMN cpu_milli BIGINT;
ALTER TABLE pod ADD COLUMN memory_mib BIGINT;
ALTER TABLE pod ADD COLUMN labels VARCHAR;
