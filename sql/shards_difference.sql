-- Question: how many samples do two targets share, and how many of these differ?
-- Grain: one row a granularity. Reads: samples, other, changed. Out: granularity, in_a, in_b, in_both, changed.
SELECT t.*, (SELECT count(*) FROM changed AS c WHERE c.granularity = t.granularity AND c.status = 'changed') AS changed
FROM (
  SELECT
    coalesce(a.granularity, b.granularity) AS granularity, count(a.key)::BIGINT AS in_a, count(b.key)::BIGINT AS in_b,
    count(*) FILTER (WHERE a.key IS NOT NULL AND b.key IS NOT NULL)::BIGINT AS in_both
  FROM (SELECT granularity, key FROM samples) AS a
  FULL JOIN (SELECT granularity, key FROM other) AS b ON a.granularity = b.granularity AND a.key = b.key
  GROUP BY ALL
) AS t
ORDER BY granularity
