-- Question: which shard does each sample go to?
-- Grain: one row a sample. In the order of the keys, which are hashes: a shuffle that needs no seed. A sample
-- weighs the larger of 1/$max_samples and bytes/$max_bytes (in integers); a shard is full when its weights reach 1.
-- key_rank numbers the samples from 1 in the order of their keys, and so of their shards.
CREATE OR REPLACE TEMP TABLE sharded AS
WITH weighed AS (
  SELECT *,
    greatest(
      $max_bytes::HUGEINT,
      least(greatest(duration_s * $bytes_per_s, $min_sample_bytes) + $more_bytes, $max_bytes)::HUGEINT * $max_samples
    ) AS weight
  FROM groups
),
before AS (
  SELECT *, row_number() OVER by_key AS key_rank,
    sum(weight) OVER (by_key ROWS UNBOUNDED PRECEDING) - weight AS weight_before
  FROM weighed
  WINDOW by_key AS (ORDER BY key)
)
SELECT
  group_value, session, part, key, key_rank, num_members, duration_s,
  ($first_shard + weight_before // ($max_bytes::HUGEINT * $max_samples))::BIGINT AS shard
FROM before
