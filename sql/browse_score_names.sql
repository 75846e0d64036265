-- Question: which scores do samples have?
-- Grain: one row a score, the most frequent first, at most $num. Reads: receipts (scores as JSON).
SELECT name, count(*)::BIGINT AS num
FROM (SELECT unnest(json_keys(scores)) AS name FROM receipts WHERE json_valid(scores) AND scores <> '{}')
GROUP BY name
ORDER BY num DESC, name
LIMIT $num
