-- Question: which long texts have no result yet, and what is asked for each?
-- Grain: one row a text, numbered from 0 in the order of the summaries' keys. Reads: long_texts, parts, samples.
CREATE OR REPLACE TEMP VIEW pending AS
SELECT
  t.number, t.key, t.parent_id, t.clip_rank, s.source_id, s.text, s.text_digest,
  list_transform(s.segments, lambda segment: segment.text) AS captions,
  s.media_uri, s.media_offset_bytes, s.media_size_bytes, s.media_extension
FROM (
  SELECT *, row_number() OVER (ORDER BY key) - 1 AS number FROM long_texts ANTI JOIN parts USING (key)
) AS t
JOIN samples AS s ON s.key = t.parent_id
