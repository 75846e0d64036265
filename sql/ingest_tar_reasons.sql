-- Question: which clips have no media, or none of use, in the indexed tars?
-- Reads: media_index(key, num_found), tar_problems(key, reason). Adds the reason to read_clips rows that had none.
--   Clips of earlier snapshots are known, wherever their tar is now.
UPDATE read_clips
SET reason = coalesce((SELECT reason FROM tar_problems AS p WHERE p.key = media_text), 'media_missing')
WHERE reason IS NULL AND media_text NOT IN (SELECT key FROM media_index WHERE num_found = 1)
  AND clip_id NOT IN (SELECT clip_id FROM known_clips)
