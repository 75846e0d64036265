-- Question: which summaries say something else than the table they were packed from?
-- Grain: one row a sample. Reads: samples, summaries. Parameter: $granularity.
-- Out: key, tar, what (text, digest or row), found, expected.
-- A text that was tried again has a row in several tables; the sample is of one of them.
SELECT
  s.key, s.tar,
  CASE WHEN t.key IS NULL THEN 'row' WHEN s.text IS DISTINCT FROM t.text THEN 'text' ELSE 'source digest' END AS what,
  CASE WHEN s.text IS DISTINCT FROM t.text THEN s.text ELSE s.source_text_digest END AS found,
  CASE WHEN s.text IS DISTINCT FROM t.text THEN t.text ELSE t.source_digest END AS expected
FROM samples AS s
LEFT JOIN summaries AS t ON t.key = s.key
WHERE s.granularity = $granularity
  AND (t.key IS NULL OR s.text IS DISTINCT FROM t.text OR s.source_text_digest IS DISTINCT FROM t.source_digest)
  AND NOT EXISTS (
    SELECT 1 FROM summaries AS u WHERE u.key = s.key AND u.text = s.text AND u.source_digest = s.source_text_digest
  )
QUALIFY row_number() OVER (PARTITION BY s.key, s.tar ORDER BY s.text IS DISTINCT FROM t.text, t.text) = 1
ORDER BY s.key, s.tar
