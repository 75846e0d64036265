-- Question: which samples were made from this clip or sample?
-- Grain: one row a sample, at most $num. Reads: edges, entries. Parameters: $parent, $excerpt.
-- Out: num counts all of them.
SELECT e.* EXCLUDE (lowered) REPLACE (e."text"[1:$excerpt] AS "text"), c.num
FROM entries AS e
JOIN (
  SELECT rowid AS row, count(*) OVER ()::BIGINT AS num FROM entries
  WHERE id IN (SELECT child FROM edges WHERE parent = hash($parent))
  ORDER BY granularity, key, id LIMIT $num
) AS c ON c.row = e.rowid
ORDER BY e.granularity, e.key, e.id
