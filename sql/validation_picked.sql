-- Question: which samples of one granularity stand for it, and which long text was each summary made from?
-- Grain: one row a sample, at most $num; the same seed picks the same. Reads: samples. Parameters: $granularity, $num,
--   $seed. Out: the sample's columns, and long_key and long_text (null where it is no summary).
-- A summary is drawn by its parent's key, and of long texts those with a summary come first, so that both draw the same
-- videos, however many summaries were rejected.
SELECT s.*, p.key AS long_key, p.text AS long_text
FROM samples AS s
LEFT JOIN samples AS p ON s.source_text_digest IS NOT NULL AND p.key = s.parents[1]
WHERE s.granularity = $granularity
ORDER BY
  s.key NOT IN (SELECT parents[1] FROM samples WHERE source_text_digest IS NOT NULL),
  md5($seed::VARCHAR || ' ' || coalesce(p.key, s.key)), s.key
LIMIT $num
