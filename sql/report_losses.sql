-- Question: why did clips and samples not get into the data set, and what are examples?
-- Grain: one row a granularity, stage, state and reason. Reads: losses (LOSS_SCHEMA and the number of the snapshot
--   that wrote the row; an excluded row may stand in two tables of one snapshot). Parameter: $num_examples.
-- What a plan or a build excluded is thought about again by every run: the word of snapshot $last counts.
-- What a later snapshot tried again counts as that snapshot lost it, if it did. Reads: retried, with its snapshot.
-- A later snapshot reads the same metadata again: what is lost again for the same reason is counted once.
WITH in_tables AS (
  SELECT granularity, stage, state, reason, id, "row", snapshot, "table",
    any_value(detail ORDER BY detail) AS detail, any_value(source_id ORDER BY source_id) AS source_id, count(*) AS n
  FROM losses AS l
  WHERE (l.state <> 'excluded' OR l.stage = 'ingest' OR l.snapshot = $last) AND NOT EXISTS (
    SELECT 1 FROM retried AS r WHERE r.granularity = l.granularity AND r.id = l.id AND r.snapshot > l.snapshot
  )
  GROUP BY ALL
), counted AS (
  SELECT granularity, stage, state, reason, id, "row",
    any_value(detail ORDER BY snapshot DESC, detail) AS detail,
    any_value(source_id ORDER BY snapshot DESC, source_id) AS source_id, max(n) AS n
  FROM in_tables GROUP BY granularity, stage, state, reason, id, "row"
)
SELECT
  granularity, stage, state, reason, sum(n)::BIGINT AS num,
  list({id: id, source_id: source_id, detail: detail, "row": "row"} ORDER BY id, "row")[1:$num_examples] AS examples
FROM counted
GROUP BY granularity, stage, state, reason
ORDER BY num DESC, granularity, stage, reason
