-- Question: which samples have these keys?
-- Grain: one row a sample. Reads: entries. Parameters: $keys, $excerpt.
SELECT * EXCLUDE (lowered) REPLACE ("text"[1:$excerpt] AS "text")
FROM entries
WHERE rowid IN (SELECT rowid FROM entries WHERE key IN (SELECT unnest($keys::VARCHAR[])))
ORDER BY granularity, key, id
