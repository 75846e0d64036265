-- Question: which values did the newest snapshot add, and which were published before it?
-- Grain: one row a sample and quantity. Reads: samples. Parameter: $newest (number of the snapshot).
-- Out: the table measured (granularity, quantity, is_new, value). Pictures have no duration.
CREATE OR REPLACE TEMP TABLE measured AS
SELECT granularity, 'duration_s' AS quantity, snapshot = $newest AS is_new, duration_s AS value
FROM samples WHERE duration_s > 0
UNION ALL
SELECT granularity, 'num_words', snapshot = $newest, num_words::DOUBLE FROM samples
UNION ALL
SELECT granularity, score.key, is_new, score.value
FROM (SELECT granularity, snapshot = $newest AS is_new, unnest(map_entries(scores)) AS score FROM samples)
WHERE score.value IS NOT NULL AND NOT isnan(score.value)
