-- Question: which long texts need a summary?
-- Grain: one row a sample of the parent granularity that is neither summarised nor rejected yet.
SELECT
  key AS parent_id, source_id, text, text_digest, segments, media_uri, media_offset_bytes, media_size_bytes,
  media_extension,
  row_number() OVER (ORDER BY key) AS clip_rank
FROM samples
WHERE key NOT IN (SELECT id FROM settled)
ORDER BY key
