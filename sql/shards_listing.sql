-- Question: what does each shard hold?
-- Grain: one row a shard with samples. Reads: samples. Out: tar, samples, duration_s, words.
SELECT
  tar, count(*)::BIGINT AS samples, coalesce(sum(duration_s), 0)::DOUBLE AS duration_s,
  coalesce(sum(num_words), 0)::BIGINT AS words
FROM samples
GROUP BY tar
ORDER BY tar
