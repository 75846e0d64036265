-- Question: what is not in the data set, each loss once?
-- Grain: one row a lost clip, sample or input row. Reads: loss_rows (a loss as the tables have it, snapshot, "table":
--   the table's number, is_rejects: whether it is one of rejects, place: the row in it). What a plan rejects stands in
--   its own table and among the rejects: the latter counts. A later snapshot reads the same metadata again: what is
--   lost again for the same reason is its newest loss.
--   What a plan or a build excluded is thought about again by every run: the last snapshot's word counts. What a
--   snapshot tried again counts as that one lost it, if it did. Reads: retried, with its snapshot. Parameter: $last.
-- Out: id gives an order, rejects first, and fits in the numbers of JavaScript.
CREATE OR REPLACE TABLE browse.losses AS
WITH again AS (
  SELECT granularity, stage, state, reason, loss_id, "row", max(snapshot) AS newest
  FROM loss_rows WHERE snapshot > (SELECT min(snapshot) FROM loss_rows)
  GROUP BY ALL
)
SELECT
  1 + (((l.state = 'excluded')::BIGINT << 51) | (l."table" << 36) | l.place) AS id,
  l.* EXCLUDE ("table", place, is_rejects)
FROM loss_rows AS l
LEFT JOIN again AS a USING (granularity, stage, state, reason, loss_id, "row")
WHERE (l.is_rejects OR l.state <> 'rejected') AND (a.newest IS NULL OR l.snapshot >= a.newest)
  AND (l.state <> 'excluded' OR l.stage = 'ingest' OR l.snapshot = $last)
  AND NOT EXISTS (
    SELECT 1 FROM retried AS r WHERE r.granularity = l.granularity AND r.id = l.loss_id AND r.snapshot > l.snapshot
  )
