-- Question: did every long text end exactly once?
-- Grain: one row. Reads: long_texts, parts. Out: num_texts, num_results, num_keys (of different results), num_unasked
--   (results of texts that are none of these).
SELECT
  (SELECT count(*) FROM long_texts) AS num_texts,
  count(*) AS num_results,
  count(DISTINCT key) AS num_keys,
  count(*) FILTER (key NOT IN (SELECT key FROM long_texts)) AS num_unasked
FROM parts
