-- Question: which samples have the lowest values of each stored score?
-- Grain: one row a granularity, score and sample, at most $num of them. Reads: samples. Parameter: $num.
SELECT granularity, score.key AS score, key, score.value AS value
FROM (SELECT granularity, key, unnest(map_entries(scores)) AS score FROM samples)
WHERE score.value IS NOT NULL AND NOT isnan(score.value)
QUALIFY row_number() OVER (PARTITION BY granularity, score.key ORDER BY score.value, key) <= $num
ORDER BY granularity, score, value, key
