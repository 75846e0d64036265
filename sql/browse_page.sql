-- Question: which samples come next?
-- Grain: one row a sample, at most $num, in order. Reads: matching (row: the rowid in entries, rank, place: what they
--   are ordered by; NULL comes last), entries. Parameters: $place and $rank of the last sample seen (rank 0: none
--   yet), $excerpt.
-- Equal places are ordered by rank, which no two samples share, so every sample comes once. Joined by rowid, texts are
--   read for the samples of the page only.
SELECT e.* EXCLUDE (lowered) REPLACE (e."text"[1:$excerpt] AS "text"), p.place
FROM entries AS e
JOIN (
  SELECT row, rank, place FROM matching
  WHERE $rank = 0 OR place > $place OR (place = $place AND rank > $rank)
    OR (place IS NULL AND ($place IS NOT NULL OR rank > $rank))
  ORDER BY place NULLS LAST, rank LIMIT $num
) AS p ON p.row = e.rowid
ORDER BY p.place NULLS LAST, p.rank
