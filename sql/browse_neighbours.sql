-- Question: which samples come right before and right after this one?
-- Grain: one row a sample, at most two; none where this one does not match. Reads: matching (as browse_page), entries.
--   Parameters: $id, $excerpt.
-- Out: step is -1 of the one before, 1 of the one after.
-- The nearest by a look at each: to sort a million samples for two of them takes many times as long.
SELECT e.* EXCLUDE (lowered) REPLACE (e."text"[1:$excerpt] AS "text"), n.step
FROM entries AS e
JOIN (
  SELECT unnest([before, after]) AS row, unnest([-1, 1]) AS step
  FROM (
    SELECT arg_max(m.row, m.spot) FILTER (m.spot < here.spot) AS before,
      arg_min(m.row, m.spot) FILTER (m.spot > here.spot) AS after
    FROM (SELECT row, row(place IS NULL, coalesce(place, 0), rank) AS spot FROM matching) AS m
    CROSS JOIN (
      SELECT row(place IS NULL, coalesce(place, 0), rank) AS spot FROM matching
      WHERE row = (SELECT rowid FROM entries WHERE id = $id)
    ) AS here
  )
) AS n ON n.row = e.rowid
