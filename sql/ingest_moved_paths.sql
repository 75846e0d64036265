-- Question: which clips of earlier snapshots lie elsewhere now, by what the metadata and the recipe say of their files?
-- Grain: one row a clip. Reads: known_clips, known_places, read_clips, duplicate_rows. Of rows that describe one clip,
--   that one counts which a clip that is new would be taken from. Joins numbers, as ingest_changes does: to miss one of
--   ten million that all moved has a chance of one in a hundred thousand.
CREATE OR REPLACE TEMP TABLE moved_clips AS
SELECT r.clip_id, r.media_text AS media_uri, NULL::BIGINT AS media_offset_bytes, NULL::BIGINT AS media_size_bytes,
  NULL::VARCHAR AS media_stamp
FROM read_clips AS r
SEMI JOIN (SELECT hash(clip_id) AS id FROM known_clips) AS k ON k.id = hash(r.clip_id)
ANTI JOIN (SELECT hash(clip_id, media_uri, media_offset_bytes) AS place FROM known_places) AS p
  ON p.place = hash(r.clip_id, r.media_text, NULL::BIGINT)
WHERE r.reason IS NULL AND r.rowid NOT IN (SELECT duplicate FROM duplicate_rows)
