-- Question: how many of the known clips have only other captions in the metadata than the one they came with?
-- Grain: one row. Reads: known_clips(clip_id, text), read_clips. Joins numbers, as ingest_changes does.
SELECT (
    SELECT count(*)
    FROM (SELECT hash(clip_id) AS id FROM known_clips)
    SEMI JOIN (SELECT hash(clip_id) AS id FROM read_clips WHERE reason IS NULL) USING (id)
  ) - (
    SELECT count(*)
    FROM (SELECT hash(clip_id, text) AS said FROM known_clips)
    SEMI JOIN (SELECT hash(clip_id, text) AS said FROM read_clips WHERE reason IS NULL) USING (said)
  ) AS num_clips
