-- Question: how many values of one score lie in each bin?
-- Grain: one row a state and bin that is not empty. Reads: scores. Parameters: $score, $starts (the lower edges,
--   ascending; the last bin has no upper edge). Out: accepted, bin (from 0), n.
WITH bins AS (SELECT unnest($starts::DOUBLE[]) AS start, generate_subscripts($starts::DOUBLE[], 1) - 1 AS bin)
SELECT s.state = 'accepted' AS accepted, b.bin, count(*)::BIGINT AS n
FROM (SELECT state, value FROM scores WHERE score = $score AND value IS NOT NULL AND NOT isnan(value)) AS s
ASOF JOIN bins AS b ON s.value >= b.start
GROUP BY ALL ORDER BY accepted, b.bin
