-- Question: which keys begin so?
-- Grain: one row a key, at most ten, the key itself first. Reads: samples. Parameter: $prefix.
SELECT key FROM samples WHERE starts_with(key, $prefix) GROUP BY key ORDER BY key = $prefix DESC, key LIMIT 10
