-- Question: which values did the newest snapshot add, and which were published before it?
-- Grain: one row a sample and quantity. Reads: samples. Parameters: $newest (number of the snapshot); $others, $names:
--   side by side, earlier snapshots and how names of scores begin that they took in another way; these are left out.
-- Out: the table measured (granularity, quantity, is_new, source, value); source is a number that stands for the
--   sample's. Pictures have no duration.
CREATE OR REPLACE TEMP TABLE measured AS
SELECT granularity, 'duration_s' AS quantity, snapshot = $newest AS is_new, hash(source_id) AS source, duration_s AS value
FROM samples WHERE duration_s > 0
UNION ALL
SELECT granularity, 'num_words', snapshot = $newest, hash(source_id), num_words::DOUBLE FROM samples
UNION ALL
SELECT granularity, score.key, snapshot = $newest, source, score.value
FROM (
  SELECT granularity, snapshot, hash(source_id) AS source, unnest(map_entries(scores)) AS score
  FROM samples
) AS s
ANTI JOIN (SELECT unnest($others::BIGINT[]) AS snapshot, unnest($names::VARCHAR[]) AS name) AS o
  ON o.snapshot = s.snapshot AND starts_with(score.key, o.name)
WHERE score.value IS NOT NULL AND NOT isnan(score.value)
