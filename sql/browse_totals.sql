-- Question: how many samples are there?
-- Grain: one row a granularity and snapshot. Reads: entries.
SELECT granularity, snapshot, count(*)::BIGINT AS samples, coalesce(sum(duration_s), 0)::DOUBLE AS duration_s
FROM entries GROUP BY granularity, snapshot ORDER BY granularity, snapshot
