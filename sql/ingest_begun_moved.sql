-- Question: of the clips of earlier snapshots that a snapshot was planned with, how many lie elsewhere now?
-- Grain: one row. Reads: begun_plans (of clips and of samples), known_clips, known_now. Joins numbers, as
--   ingest_changes does.
SELECT count(*) AS num_moved
FROM (
  SELECT DISTINCT hash(id) AS id, hash(id, media_uri, media_offset_bytes, media_stamp) AS place
  FROM begun_plans
) AS p
SEMI JOIN (SELECT hash(clip_id) AS id FROM known_clips) AS k USING (id)
ANTI JOIN (
  SELECT hash(clip_id, media_uri, media_offset_bytes, media_stamp) AS place FROM known_now
) AS n USING (place)
