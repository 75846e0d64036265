-- Question: how is each stored score distributed over everything published?
-- Grain: one row a granularity and score. Reads: samples. `std` is that of the population.
SELECT granularity, score.key AS score, count(*)::BIGINT AS num, avg(score.value) AS mean, stddev_pop(score.value) AS std
FROM (SELECT granularity, unnest(map_entries(scores)) AS score FROM samples)
WHERE score.value IS NOT NULL AND NOT isnan(score.value)
GROUP BY ALL ORDER BY granularity, score
