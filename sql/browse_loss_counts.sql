-- Question: how many losses are there for each reason?
-- Grain: one row a granularity, stage, state and reason. Reads: losses.
SELECT granularity, stage, state, reason, count(*)::BIGINT AS num
FROM losses GROUP BY granularity, stage, state, reason
ORDER BY num DESC, granularity, stage, reason
