-- Question: which samples differ between two targets?
-- Grain: one row a sample that is in one only, or in both with different content. Reads: samples, other.
-- Out: granularity, key, status (only in A, only in B, changed), before and after (the compared columns).
WITH a AS (
  SELECT granularity, key, struct_pack(parents, segments, text_digest, source_text_digest, duration_s, width_px,
    height_px, fps, codec, made_by, scores, media_extension, media_size_bytes, frames, frames_size_bytes) AS content
  FROM samples
), b AS (
  SELECT granularity, key, struct_pack(parents, segments, text_digest, source_text_digest, duration_s, width_px,
    height_px, fps, codec, made_by, scores, media_extension, media_size_bytes, frames, frames_size_bytes) AS content
  FROM other
)
SELECT
  granularity, key,
  CASE WHEN b.key IS NULL THEN 'only in A' WHEN a.key IS NULL THEN 'only in B' ELSE 'changed' END AS status,
  a.content AS before, b.content AS after
FROM a
FULL JOIN b USING (granularity, key)
WHERE a.key IS NULL OR b.key IS NULL OR a.content IS DISTINCT FROM b.content
ORDER BY granularity, status, key
