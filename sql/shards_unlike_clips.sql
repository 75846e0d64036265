-- Question: which segments say something else than the table of clips?
-- Grain: one row a segment. Reads: samples, clips. Out: key, tar, clip_id, found, expected. $not_built_in: granularities
--   in which a segment can be a part of its clip, in milliseconds as exactly as times are told.
SELECT
  s.key, s.tar, s.segment.clip_id AS clip_id,
  concat_ws(' ', s.segment.source_id, s.segment.start_s, s.segment.end_s, s.segment.text) AS found,
  concat_ws(' ', c.source_id, c.start_s, c.end_s, c.text) AS expected
FROM (SELECT key, tar, granularity, unnest(segments) AS segment FROM samples) AS s
JOIN clips AS c ON c.clip_id = s.segment.clip_id
WHERE (s.segment.text, s.segment.source_id) IS DISTINCT FROM (c.text, c.source_id)
  OR (
    (s.segment.start_s, s.segment.end_s) IS DISTINCT FROM (c.start_s, c.end_s)
    AND NOT coalesce(
      list_contains($not_built_in::VARCHAR[], s.granularity)
      AND c.start_s - 0.001 <= s.segment.start_s
      AND s.segment.start_s <= s.segment.end_s
      AND s.segment.end_s <= c.end_s + 0.001,
      false)
  )
ORDER BY s.key, clip_id
