-- Question: of the clips that are known, how many do the metadata no longer hold, and how many with other captions only?
-- Grain: one row. Reads: known_clips(clip_id, text), read_clips. Joins numbers in place of ids and captions: of millions
--   of clips these would not fit in memory. Two of 64 bits that are equal by chance would be one clip less in a note.
SELECT
  (
    SELECT count(*)
    FROM (SELECT hash(clip_id) AS id FROM known_clips) ANTI JOIN (SELECT hash(clip_id) AS id FROM read_clips) USING (id)
  ) AS num_unseen,
  (
    SELECT count(*)
    FROM (SELECT hash(clip_id) AS id FROM known_clips)
    SEMI JOIN (SELECT hash(clip_id) AS id FROM read_clips WHERE reason IS NULL) USING (id)
  ) - (
    SELECT count(*)
    FROM (SELECT hash(clip_id, text) AS said FROM known_clips)
    SEMI JOIN (SELECT hash(clip_id, text) AS said FROM read_clips WHERE reason IS NULL) USING (said)
  ) AS num_other_text
