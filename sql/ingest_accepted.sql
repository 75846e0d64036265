-- Question: which clips does this run accept that were not known before?
-- Grain: one row a clip. Reads: read_clips, duplicate_rows, known_clips(clip_id). A view: a second copy of all rows
--   would not fit in memory. Clean captions have single spaces, so words are counted by them.
CREATE OR REPLACE TEMP VIEW accepted AS
SELECT
  clip_id, source_id, start_s, end_s, text,
  length(text) - length(replace(text, ' ', '')) + 1 AS num_words,
  text_cleaned, media_text, input
FROM read_clips AS r
WHERE reason IS NULL
  AND r.rowid NOT IN (SELECT duplicate FROM duplicate_rows)
  AND clip_id NOT IN (SELECT clip_id FROM known_clips)
