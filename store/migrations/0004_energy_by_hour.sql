-- The energy that the counter counted in each hour, which no mean of watts gives where samples are missing.
ALTER TABLE gpu_hour ADD COLUMN energy_j DOUBLE;
