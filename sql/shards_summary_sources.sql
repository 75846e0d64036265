-- Question: which summaries were made from another text than their parent's?
-- Grain: one row a summary. Reads: samples, clips. Out: key, tar, found (the digest it carries), expected (the
--   parent's, null where the parent is not known).
SELECT s.key, s.tar, s.source_text_digest AS found, sha256(coalesce(p.text, c.text)) AS expected
FROM samples AS s
LEFT JOIN samples AS p ON p.key = s.parents[1]
LEFT JOIN clips AS c ON c.clip_id = s.parents[1]
WHERE s.source_text_digest IS NOT NULL
  AND s.source_text_digest IS DISTINCT FROM sha256(coalesce(p.text, c.text))
ORDER BY s.key, s.tar
