-- Question: how many values before and in the newest snapshot lie in each bin?
-- Grain: one row a bin that is not empty. Reads: measured. Parameters: $granularity, $quantity, $starts (the lower
--   edges, ascending from minus infinity; the last bin has no upper edge). Out: bin (from 0), before, new.
WITH bins AS (SELECT unnest($starts::DOUBLE[]) AS start, generate_subscripts($starts::DOUBLE[], 1) - 1 AS bin)
SELECT b.bin, count(*) FILTER (NOT m.is_new)::BIGINT AS before, count(*) FILTER (m.is_new)::BIGINT AS new
FROM (SELECT is_new, value FROM measured WHERE granularity = $granularity AND quantity = $quantity) AS m
ASOF JOIN bins AS b ON m.value >= b.start
GROUP BY b.bin ORDER BY b.bin
