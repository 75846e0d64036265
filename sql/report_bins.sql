-- Question: how many values of one quantity lie in each bin?
-- Grain: one row a granularity and bin that is not empty. Reads: measured. Parameters: $quantity, $starts (the lower
--   edges, ascending; the last bin has no upper edge). Out: granularity, bin (from 0), n.
WITH bins AS (SELECT unnest($starts::DOUBLE[]) AS start, generate_subscripts($starts::DOUBLE[], 1) - 1 AS bin)
SELECT m.granularity, b.bin, count(*)::BIGINT AS n
FROM (SELECT granularity, value FROM measured WHERE quantity = $quantity AND NOT isnan(value)) AS m
ASOF JOIN bins AS b ON m.value >= b.start
GROUP BY m.granularity, b.bin
ORDER BY m.granularity NULLS FIRST, b.bin
