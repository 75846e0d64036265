-- Question: who wrote these summaries, and in how many attempts?
-- Grain: one row a sample. Reads: summaries. Parameter: $keys.
SELECT key, any_value(backend) AS backend, any_value(attempts)::BIGINT AS attempts
FROM summaries WHERE key IN (SELECT unnest($keys::VARCHAR[])) GROUP BY key ORDER BY key
