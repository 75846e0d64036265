-- Question: which samples fulfil the condition?
-- Grain: one row a sample, at most $num of them (all when negative). Reads: samples, found (granularity, key).
SELECT s.*
FROM samples AS s
SEMI JOIN found AS f ON f.granularity IS NOT DISTINCT FROM s.granularity AND f.key = s.key
ORDER BY s.granularity, s.key, s.tar
LIMIT CASE WHEN $num < 0 THEN 9223372036854775807 ELSE $num END
