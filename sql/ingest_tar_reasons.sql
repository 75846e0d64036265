-- Question: which clips have no media, or two, in the indexed tars?
-- Reads: media_index(key, num_found). Adds the reason to read_clips rows that had none.
UPDATE read_clips
SET reason = CASE
  WHEN media_text IN (SELECT key FROM media_index WHERE num_found > 1) THEN 'media_ambiguous'
  ELSE 'media_missing'
END
WHERE reason IS NULL AND media_text NOT IN (SELECT key FROM media_index WHERE num_found = 1)
