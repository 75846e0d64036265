-- Question: which input rows are not accepted, and why?
-- Grain: one row an input row that is not accepted; rows of clips known from earlier snapshots are not listed.
-- Excluded by the recipe's predicate, else rejected. Reads: read_clips, duplicate_rows, tar_problems(key, detail).
-- $tar_note: what is wrong with whole tars.
CREATE OR REPLACE TEMP TABLE ingest_losses AS
SELECT
  $granularity AS granularity,
  'ingest' AS stage,
  CASE WHEN final_reason = 'filtered_by_where' THEN 'excluded' ELSE 'rejected' END AS state,
  final_reason AS reason,
  CASE final_reason
    WHEN 'missing_source_id'
      THEN coalesce('the id lost its digits: it was read as a floating number, ' || nullif(source_id, ''), '')
    WHEN 'unreadable_timestamp'
      THEN 'start ' || coalesce(start_text, 'missing') || ', end ' || coalesce(end_text, 'missing')
    WHEN 'end_not_after_start' THEN 'start ' || start_s || ' s, end ' || end_s || ' s'
    WHEN 'unsafe_source_id' THEN CASE
      WHEN strlen(source_id) > 200 THEN 'longer than 200 bytes'
      WHEN source_id[1] = '.' THEN 'begins with a dot'
      ELSE 'holds a space, a control character or a slash'
    END
    WHEN 'unsafe_media_path' THEN media_text
    WHEN 'media_missing' THEN
      coalesce(p.detail, 'no tar holds the key ' || media_text || $tar_note, 'the row does not say where it is, or by a name that is too long for a file')
    WHEN 'duplicate_clip' THEN
      CASE WHEN text = kept_text THEN '' ELSE 'with another caption; kept: ' || left(kept_text, 200) END
    WHEN 'media_truncated' THEN p.detail
    WHEN 'media_ambiguous' THEN p.detail
    ELSE ''
  END AS detail,
  coalesce(clip_id, '') AS id,
  coalesce(source_id, '') AS source_id,
  to_json(input)::VARCHAR AS row
FROM (
  SELECT r.*, d.kept_text, coalesce(reason, 'duplicate_clip') AS final_reason
  FROM read_clips AS r LEFT JOIN duplicate_rows AS d ON d.duplicate = r.rowid
  WHERE reason IS NOT NULL OR d.duplicate IS NOT NULL
) AS l
LEFT JOIN tar_problems AS p ON p.key = l.media_text AND l.final_reason = p.reason
