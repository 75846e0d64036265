-- Question: which readable rows describe a clip that another row describes as well?
-- Grain: one row a row too many, with the caption that is kept. The row kept is the first by caption and content,
--   whatever the order of the files.
CREATE OR REPLACE TEMP TABLE duplicate_rows AS
WITH twice AS (
  SELECT clip_id FROM read_clips WHERE reason IS NULL GROUP BY clip_id HAVING count(*) > 1
)
SELECT rowid_in_read AS duplicate, kept_text
FROM (
  SELECT r.rowid AS rowid_in_read,
    row_number() OVER same_clip AS copy,
    first_value(text) OVER same_clip AS kept_text
  FROM read_clips AS r SEMI JOIN twice USING (clip_id)
  WHERE reason IS NULL
  WINDOW same_clip AS (PARTITION BY clip_id ORDER BY text, input::VARCHAR)
)
WHERE copy > 1
