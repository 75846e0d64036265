-- Question: how many rejects stand, by granularity, stage and reason?
-- Grain: one row a granularity, stage and reason. Reads: standing.
SELECT granularity, stage, reason, count(*) AS num, any_value(detail ORDER BY id) AS example
FROM standing
GROUP BY granularity, stage, reason
ORDER BY granularity, num DESC, reason
