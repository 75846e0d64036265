-- Question: which shards held the retired samples?
-- Grain: one row a shard. Reads: retired(shard).
SELECT DISTINCT shard FROM retired ORDER BY shard
