-- Question: which shards does a written plan have?
-- Grain: one row a shard.
SELECT shard, count(DISTINCT key) AS num_samples FROM plan GROUP BY shard ORDER BY shard
