-- Question: what do the receipts say about these samples?
-- Grain: one row a sample. Reads: receipts. Parameter: $keys.
SELECT * FROM receipts WHERE key IN (SELECT unnest($keys::VARCHAR[])) ORDER BY key
