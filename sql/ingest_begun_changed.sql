-- Question: of the clips that a snapshot was begun with, how many do the metadata no longer hold as they were?
-- Grain: one row. Reads: begun_clips, clips_new. What a sample is made of counts, not what else a row says: a column that
--   came, or numbers that are written otherwise now, change no sample. Joins numbers, as ingest_changes does.
SELECT count(*) AS num_changed
FROM (
  SELECT hash(
    clip_id, source_id, start_s, end_s, text, media_uri, media_offset_bytes, media_size_bytes, media_stamp
  ) AS clip_hash
  FROM begun_clips
) ANTI JOIN (
  SELECT hash(
    clip_id, source_id, start_s, end_s, text, media_uri, media_offset_bytes, media_size_bytes, media_stamp
  ) AS clip_hash
  FROM clips_new
) USING (clip_hash)
