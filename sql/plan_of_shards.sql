-- Question: which shards does a written plan have?
-- Grain: one row a shard.
SELECT shard, count(DISTINCT key) AS num_samples, count(*) AS num_members
FROM plan GROUP BY shard ORDER BY shard
