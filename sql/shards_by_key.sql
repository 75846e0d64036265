-- Question: what is known of these samples?
-- Grain: one row a sample. Reads: samples. Parameter: $keys.
SELECT * FROM samples WHERE key IN (SELECT unnest($keys::VARCHAR[])) ORDER BY granularity, key, tar
