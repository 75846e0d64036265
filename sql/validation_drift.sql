-- Question: how do the values of the newest snapshot compare with those before it?
-- Grain: one row a granularity and quantity that both have. Reads: measured. `std` is that of a sample.
-- Out: also minimum, deciles and maximum of the values before (11 quantiles), by which both are binned; and how many
--   sources the values are of, about: of millions they are not counted one by one.
SELECT
  granularity, quantity,
  count(*) FILTER (NOT is_new)::BIGINT AS num_before, count(*) FILTER (is_new)::BIGINT AS num_new,
  least(approx_count_distinct(source) FILTER (NOT is_new), num_before) AS num_sources_before,
  least(approx_count_distinct(source) FILTER (is_new), num_new) AS num_sources_new,
  avg(value) FILTER (NOT is_new) AS mean_before, avg(value) FILTER (is_new) AS mean_new,
  coalesce(stddev_samp(value) FILTER (NOT is_new), 0) AS std_before,
  coalesce(stddev_samp(value) FILTER (is_new), 0) AS std_new,
  quantile_cont(value, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]) FILTER (NOT is_new) AS quantiles
FROM measured
GROUP BY granularity, quantity
HAVING num_before > 0 AND num_new > 0
ORDER BY granularity, quantity
