-- Question: which quantities of a sample are counted?
-- Grain: one row a sample and quantity. Reads: samples. Out: the view measured (granularity, quantity, value).
CREATE OR REPLACE TEMP VIEW measured AS
SELECT granularity, 'duration_s' AS quantity, duration_s AS value FROM samples WHERE duration_s > 0
UNION ALL
SELECT granularity, 'num_words', num_words::DOUBLE FROM samples
UNION ALL
SELECT granularity, 'score ' || score.key, score.value
FROM (SELECT granularity, unnest(map_entries(scores)) AS score FROM samples)
