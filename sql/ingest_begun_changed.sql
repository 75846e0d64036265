-- Question: of the clips that a snapshot was begun with, how many do the metadata no longer hold as they were?
-- Grain: one row. Reads: begun_clips, clips_new. Joins numbers in place of rows, as ingest_changes does.
SELECT count(*) AS num_changed
FROM (SELECT hash(c) AS row_hash FROM begun_clips AS c)
  ANTI JOIN (SELECT hash(c) AS row_hash FROM clips_new AS c) USING (row_hash)
