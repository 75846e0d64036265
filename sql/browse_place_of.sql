-- Question: where is this sample?
-- Grain: one row a sample with this granularity and key, several where a key stands twice. Reads: entries.
-- Parameters: $granularity, $key.
SELECT id FROM entries WHERE granularity = $granularity AND key = $key ORDER BY id
