-- Question: which input rows are not accepted, and why?
-- Grain: one row an input row that is not accepted; rows of clips known from earlier snapshots are not listed.
-- Excluded by the recipe's predicate, else rejected.
CREATE OR REPLACE TEMP TABLE ingest_losses AS
SELECT
  $granularity AS granularity,
  'ingest' AS stage,
  CASE WHEN final_reason = 'filtered_by_where' THEN 'excluded' ELSE 'rejected' END AS state,
  final_reason AS reason,
  CASE final_reason
    WHEN 'unreadable_timestamp'
      THEN 'start ' || coalesce(start_text, 'missing') || ', end ' || coalesce(end_text, 'missing')
    WHEN 'end_not_after_start' THEN 'start ' || start_s || ' s, end ' || end_s || ' s'
    WHEN 'unsafe_source_id' THEN CASE
      WHEN strlen(source_id) > 200 THEN 'longer than 200 bytes'
      WHEN source_id[1] = '.' THEN 'begins with a dot'
      ELSE 'holds a space, a control character or a slash'
    END
    WHEN 'unsafe_media_path' THEN media_text
    ELSE ''
  END AS detail,
  coalesce(clip_id, '') AS id,
  coalesce(source_id, '') AS source_id,
  to_json(input)::VARCHAR AS row
FROM (
  SELECT r.*, coalesce(reason, 'duplicate_clip') AS final_reason
  FROM read_clips AS r
  WHERE reason IS NOT NULL OR r.rowid IN (SELECT duplicate FROM duplicate_rows)
)
