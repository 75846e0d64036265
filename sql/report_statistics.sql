-- Question: how are the measured values distributed?
-- Grain: one row a granularity and quantity. Reads: measured. `std` is that of the population.
SELECT
  granularity, quantity,
  count(*)::BIGINT AS num, avg(value) AS mean, stddev_pop(value) AS std, min(value) AS min,
  quantile_cont(value, 0.05) AS p05, median(value) AS median, quantile_cont(value, 0.95) AS p95, max(value) AS max
FROM measured
WHERE value IS NOT NULL AND NOT isnan(value)
GROUP BY granularity, quantity
ORDER BY granularity NULLS FIRST, quantity
