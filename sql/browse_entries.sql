-- Question: what is needed of every sample to filter, order and list it?
-- Grain: one row a sample. Reads: numbered_receipts, receipt_files (path, number, granularity, snapshot), ranks.
--   Parameter: $pointers (a JSON pointer a score).
-- Out: lowered is the text to search in. Scores in the order of $pointers, NULL where there is none. A duration of 0 is a picture's, and none.
CREATE OR REPLACE TABLE browse.entries AS
SELECT
  k.id, k.rank,
  coalesce(nullif(f.granularity, ''), r.granularity, '') AS granularity,
  r.key, f.snapshot, coalesce(r.source_id, '') AS source_id,
  r.num_words::INTEGER AS num_words,
  CASE WHEN r.duration_s > 0 AND isfinite(r.duration_s) THEN r.duration_s END AS duration_s,
  coalesce(r."text", '') AS "text", lower(coalesce(r."text", '')) AS lowered,
  r.media_extension,
  coalesce(len(r.segments), 0)::INTEGER AS num_segments,
  CASE WHEN json_valid(r.scores) THEN
    list_transform(json_extract_string(r.scores, $pointers), lambda score: nullif(TRY_CAST(score AS DOUBLE), 'nan'))
  END AS scores
FROM numbered_receipts AS r
JOIN receipt_files AS f ON f.path = r.filename
JOIN ranks AS k ON k.id = ((f.number << 32) | r.file_row_number)
