-- Question: who wrote the summaries of these samples, and in how many attempts?
-- Grain: one row a summarised sample and text. Reads: summaries. Parameter: $parents.
SELECT DISTINCT parent_id, text, backend, attempts::BIGINT AS attempts
FROM summaries WHERE parent_id IN (SELECT unnest($parents::VARCHAR[])) ORDER BY parent_id, text
