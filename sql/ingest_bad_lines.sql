-- Question: which lines of CSV files are no rows at all?
-- Grain: one row a line. Reads: reject_errors, which DuckDB fills while it reads.
INSERT INTO ingest_losses
SELECT $granularity, 'ingest', 'rejected', 'unreadable_row',
  'line ' || line || ': ' || any_value(error_message), '', '', any_value(csv_line)
FROM reject_errors
GROUP BY scan_id, file_id, line
