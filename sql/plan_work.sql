-- Question: what is written for the workers, in which order?
-- Grain: one row a parent inside a sample, by shard, key and position. Reads: plan.
-- Sorted by two small numbers: shards follow the keys, and comparing keys would take longer than anything else here.
CREATE OR REPLACE TEMP VIEW work AS
SELECT * EXCLUDE (key_rank) FROM plan ORDER BY key_rank, position
