-- Question: what does a plan come to?
-- Grain: one row.
SELECT
  count(*) AS num_samples,
  coalesce(sum(num_members), 0)::BIGINT AS num_members,
  count(DISTINCT shard) AS num_shards,
  coalesce(sum(duration_s), 0)::DOUBLE AS duration_s
FROM sharded
