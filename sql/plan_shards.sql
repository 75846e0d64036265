-- Question: which shard does each sample go to?
-- Grain: one row a sample. In the order of the keys, which are hashes: a shuffle that needs no seed. A sample
-- weighs the larger of 1/$max_samples and bytes/$max_bytes (in integers); a shard is full when its weights reach 1.
CREATE OR REPLACE TEMP TABLE sharded AS
WITH weighed AS (
  SELECT *,
    greatest(
      $max_bytes::HUGEINT,
      least(greatest(duration_s * $bytes_per_s, $min_sample_bytes), $max_bytes)::HUGEINT * $max_samples
    ) AS weight
  FROM groups
),
before AS (
  SELECT *, sum(weight) OVER (ORDER BY key ROWS UNBOUNDED PRECEDING) - weight AS weight_before FROM weighed
)
SELECT
  group_value, session, part, key, num_members, duration_s,
  ($first_shard + weight_before // ($max_bytes::HUGEINT * $max_samples))::BIGINT AS shard
FROM before
