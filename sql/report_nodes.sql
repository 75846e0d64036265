-- Question: what does each published granularity hold?
-- Grain: one row a granularity. Reads: receipts.
SELECT
  granularity,
  count(*)::BIGINT AS samples,
  count(DISTINCT source_id)::BIGINT AS sources,
  sum(duration_s)::DOUBLE AS duration_s,
  sum(num_words)::BIGINT AS words,
  avg(len(segments)) AS mean_segments,
  histogram(made_by) AS made_by
FROM receipts GROUP BY granularity ORDER BY granularity
