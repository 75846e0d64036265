-- Question: which samples differ between two targets?
-- Grain: one row a sample that is in one only, or in both with different content. Reads: samples, other.
-- Out: the table changed: place (1 is the first), granularity, key, status (changed, only in A, only in B), fields (of a
--   changed one the names of the columns that differ).
CREATE OR REPLACE TEMP TABLE changed AS
WITH compared AS (
  SELECT
    granularity, key,
    CASE WHEN b.key IS NULL THEN 'only in A' WHEN a.key IS NULL THEN 'only in B' ELSE 'changed' END AS status,
    CASE WHEN a.key IS NULL OR b.key IS NULL THEN [] ELSE list_filter([
      CASE WHEN a.parents IS DISTINCT FROM b.parents THEN 'parents' END,
      CASE WHEN a.segments IS DISTINCT FROM b.segments THEN 'segments' END,
      CASE WHEN a.text_digest IS DISTINCT FROM b.text_digest THEN 'text_digest' END,
      CASE WHEN a.source_text_digest IS DISTINCT FROM b.source_text_digest THEN 'source_text_digest' END,
      CASE WHEN a.duration_s IS DISTINCT FROM b.duration_s THEN 'duration_s' END,
      CASE WHEN a.width_px IS DISTINCT FROM b.width_px THEN 'width_px' END,
      CASE WHEN a.height_px IS DISTINCT FROM b.height_px THEN 'height_px' END,
      CASE WHEN a.fps IS DISTINCT FROM b.fps THEN 'fps' END,
      CASE WHEN a.codec IS DISTINCT FROM b.codec THEN 'codec' END,
      CASE WHEN a.made_by IS DISTINCT FROM b.made_by THEN 'made_by' END,
      CASE WHEN a.scores IS DISTINCT FROM b.scores THEN 'scores' END,
      CASE WHEN a.media_extension IS DISTINCT FROM b.media_extension THEN 'media_extension' END,
      CASE WHEN a.media_size_bytes IS DISTINCT FROM b.media_size_bytes THEN 'media_size_bytes' END,
      CASE WHEN a.frames IS DISTINCT FROM b.frames THEN 'frames' END,
      CASE WHEN a.frames_size_bytes IS DISTINCT FROM b.frames_size_bytes THEN 'frames_size_bytes' END
    ], lambda name: name IS NOT NULL) END AS fields
  FROM samples AS a
  FULL JOIN other AS b USING (granularity, key)
)
SELECT row_number() OVER (ORDER BY granularity, status, key) AS place, *
FROM compared
WHERE status <> 'changed' OR len(fields) > 0
