-- Question: which values did the newest snapshot add, and which were published before it?
-- Grain: one row a sample and quantity. Reads: samples. Parameter: $newest (number of the snapshot).
-- Out: the table measured (granularity, quantity, is_new, source, value); source is a number that stands for the
--   sample's. Pictures have no duration.
CREATE OR REPLACE TEMP TABLE measured AS
SELECT granularity, 'duration_s' AS quantity, snapshot = $newest AS is_new, hash(source_id) AS source, duration_s AS value
FROM samples WHERE duration_s > 0
UNION ALL
SELECT granularity, 'num_words', snapshot = $newest, hash(source_id), num_words::DOUBLE FROM samples
UNION ALL
SELECT granularity, score.key, is_new, source, score.value
FROM (
  SELECT granularity, snapshot = $newest AS is_new, hash(source_id) AS source, unnest(map_entries(scores)) AS score
  FROM samples
)
WHERE score.value IS NOT NULL AND NOT isnan(score.value)
