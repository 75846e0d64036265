-- Question: what do the rows of a corpus say that is read for its captions alone?
-- Grain: one row a row. Reads: assessed_rows(source_id_text, start_text, end_text, caption_text). Out: what ingest_read
--   reads; all media is taken to be there.
CREATE OR REPLACE TEMP VIEW raw_clips AS
SELECT
  source_id_text AS source_text, start_text, end_text, caption_text,
  '' AS media_text, false AS media_unsafe, true AS passes, NULL::VARCHAR AS input
FROM assessed_rows
