-- Question: how many samples do two targets share?
-- Grain: one row a granularity. Reads: samples, other. Out: granularity, in_a, in_b, in_both.
SELECT
  coalesce(a.granularity, b.granularity) AS granularity, count(a.key)::BIGINT AS in_a, count(b.key)::BIGINT AS in_b,
  count(*) FILTER (WHERE a.key IS NOT NULL AND b.key IS NOT NULL)::BIGINT AS in_both
FROM samples AS a
FULL JOIN other AS b ON a.granularity = b.granularity AND a.key = b.key
GROUP BY ALL
ORDER BY granularity
