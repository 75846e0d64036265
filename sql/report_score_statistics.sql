-- Question: how are the scores of one granularity distributed?
-- Grain: one row a score. Reads: scores(key, state, score, value). The figures are those of the accepted samples.
SELECT
  score,
  count(*) FILTER (state = 'accepted')::BIGINT AS num,
  avg(value) FILTER (state = 'accepted') AS mean,
  stddev_pop(value) FILTER (state = 'accepted') AS std,
  min(value) FILTER (state = 'accepted') AS min,
  quantile_cont(value, 0.05) FILTER (state = 'accepted') AS p05,
  median(value) FILTER (state = 'accepted') AS median,
  quantile_cont(value, 0.95) FILTER (state = 'accepted') AS p95,
  max(value) FILTER (state = 'accepted') AS max,
  count(*) FILTER (state <> 'accepted')::BIGINT AS num_rejected,
  min(value) AS lowest,
  max(value) AS highest
FROM scores
WHERE value IS NOT NULL AND NOT isnan(value)
GROUP BY score ORDER BY score
