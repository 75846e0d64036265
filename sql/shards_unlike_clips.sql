-- Question: which segments say something else than the table of clips?
-- Grain: one row a segment. Reads: samples, clips. Out: key, tar, clip_id, found, expected.
SELECT
  s.key, s.tar, s.segment.clip_id AS clip_id,
  concat_ws(' ', s.segment.source_id, s.segment.start_s, s.segment.end_s, s.segment.text) AS found,
  concat_ws(' ', c.source_id, c.start_s, c.end_s, c.text) AS expected
FROM (SELECT key, tar, unnest(segments) AS segment FROM samples) AS s
JOIN clips AS c ON c.clip_id = s.segment.clip_id
WHERE (s.segment.text, s.segment.source_id, s.segment.start_s, s.segment.end_s)
  IS DISTINCT FROM (c.text, c.source_id, c.start_s, c.end_s)
ORDER BY s.key, clip_id
