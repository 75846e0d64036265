-- Question: which published summaries were made of these samples?
-- Grain: one row a parent (the first granularity that summarises it, by name). Reads: receipts. Parameter: $keys.
SELECT parents[1] AS parent_id, granularity, text, scores
FROM receipts
WHERE source_text_digest IS NOT NULL AND parents[1] IN (SELECT unnest($keys::VARCHAR[]))
QUALIFY row_number() OVER (PARTITION BY parents[1] ORDER BY granularity, key) = 1
ORDER BY parent_id
