-- Question: which lines of CSV files are no rows at all?
-- Grain: one row a line. Reads: reject_errors and reject_scans, which DuckDB fills while it reads. A quotation mark
--   that is never closed takes the lines after it for text: they are in the row, and counted in the detail.
INSERT INTO ingest_losses
SELECT $granularity, 'ingest', 'rejected', 'unreadable_row',
  any_value(parse_filename(s.file_path)) || ' line ' || line || ': ' || any_value(error_message)
    || CASE WHEN any_value(inside) > 0 THEN ' ' || any_value(inside) || ' more lines lie inside its quotes.' ELSE '' END,
  '', '', any_value(csv_line)
FROM (
  SELECT *, len(string_split(rtrim(csv_line, chr(13) || chr(10)), chr(10))) - 1 AS inside FROM reject_errors
) AS e
LEFT JOIN (SELECT DISTINCT scan_id, file_id, file_path FROM reject_scans) AS s USING (scan_id, file_id)
GROUP BY scan_id, file_id, line
