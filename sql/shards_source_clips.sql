-- Question: which source clips do the samples of each shard come from, and where do these lie?
-- Grain: one row a shard, clip, table that has the clip and table that moved it. Reads: wanted (shard, clip_id),
--   clips_written, clips_moved (snapshot: the table's). Out: the view source_clips with the newest place of that row;
--   written and moved order the rows of a clip, of which the last one holds.
CREATE OR REPLACE TEMP VIEW source_clips AS
WITH columns_of AS (  -- tables can be older than a column
  SELECT
    NULL::VARCHAR AS clip_id, NULL::DOUBLE AS start_s, NULL::DOUBLE AS end_s, NULL::VARCHAR AS media_uri,
    NULL::BIGINT AS media_offset_bytes, NULL::BIGINT AS media_size_bytes, NULL::VARCHAR AS media_stamp
  WHERE false
), c AS (
  SELECT * FROM clips_written UNION ALL BY NAME SELECT * FROM columns_of
), m AS (
  SELECT * FROM clips_moved UNION ALL BY NAME SELECT * FROM columns_of
)
SELECT
  w.shard, c.clip_id, c.start_s, c.end_s,
  CASE WHEN m.clip_id IS NULL THEN c.media_uri ELSE m.media_uri END AS media_uri,
  CASE WHEN m.clip_id IS NULL THEN c.media_offset_bytes ELSE m.media_offset_bytes END AS media_offset_bytes,
  CASE WHEN m.clip_id IS NULL THEN c.media_size_bytes ELSE m.media_size_bytes END AS media_size_bytes,
  CASE WHEN m.clip_id IS NULL THEN c.media_stamp ELSE m.media_stamp END AS media_stamp,
  c.snapshot AS written, m.snapshot AS moved
FROM wanted AS w
JOIN c ON c.clip_id = w.clip_id
LEFT JOIN m ON m.clip_id = c.clip_id
