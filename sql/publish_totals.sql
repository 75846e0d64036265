-- Question: what does a snapshot add to a granularity?
-- Grain: one row.
SELECT
  count(*)::BIGINT AS samples,
  coalesce(sum(duration_s), 0)::DOUBLE AS duration_s,
  coalesce(sum(num_words), 0)::BIGINT AS words,
  count(*) FILTER (made_by = 'copy')::BIGINT AS copied,
  count(*) FILTER (made_by = 'encode')::BIGINT AS encoded
FROM receipts
