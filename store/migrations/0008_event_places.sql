-- Events of a MIG GPU name the instance they concern, and a source keeps its place in its own words (a log's cursor).
ALTER TABLE event ADD COLUMN gpu_instance INTEGER;
ALTER TABLE watermark ADD COLUMN cursor VARCHAR;
