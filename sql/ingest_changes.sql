-- Question: of the clips that are known, how many do the metadata no longer hold, and how many not as they are known?
-- Grain: one row. Reads: known_clips(clip_id, text), known_places(clip_id, text, media_uri, media_offset_bytes),
--   read_clips, duplicate_rows. $has_paths: media_text says where a clip lies, which counts as well. Where num_other is
--   0, no clip has another caption and none lies elsewhere; where it is not, other questions tell which.
--   Joins numbers in place of ids, captions and paths: of millions of clips these would not fit in memory. Two of 64
--   bits that are equal by chance would be one clip less in a note.
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
    FROM (
      SELECT hash(clip_id, text, media_uri, media_offset_bytes) AS said FROM known_places WHERE $has_paths
      UNION ALL SELECT hash(clip_id, text) AS said FROM known_clips WHERE NOT $has_paths
    )
    SEMI JOIN (
      SELECT CASE WHEN $has_paths THEN hash(clip_id, text, media_text, NULL::BIGINT) ELSE hash(clip_id, text) END AS said
      FROM read_clips AS r
      WHERE reason IS NULL AND r.rowid NOT IN (SELECT duplicate FROM duplicate_rows)
    ) USING (said)
  ) AS num_other
