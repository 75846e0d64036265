-- Question: why did clips and samples not get into the data set, and what are examples?
-- Grain: one row a granularity, stage, state and reason. Reads: losses (LOSS_SCHEMA, the number of the snapshot that
--   wrote the row, and its table; a rejected row may stand in two tables of one snapshot). Parameter: $num_examples.
-- What a plan or a build excluded is thought about again by every run: the word of snapshot $last counts.
-- What a later snapshot tried again counts as that snapshot lost it, if it did. Reads: retried, with its snapshot.
-- A later snapshot reads the same metadata again: what is lost again for the same reason is counted once.
-- What a plan excluded is most of a large collection, and stands once in the plan's own table: it is counted without
--   being grouped by id. Nothing sorts all rows: the first ids of each reason are kept on the way.
WITH in_tables AS (
  SELECT granularity, stage, state, reason, id, "row", snapshot, "table",
    min(detail) AS detail, min(source_id) AS source_id, count(*) AS n
  FROM losses AS l
  WHERE NOT (state = 'excluded' AND stage = 'plan')
    AND (l.state <> 'excluded' OR l.stage = 'ingest' OR l.snapshot = $last) AND NOT EXISTS (
      SELECT 1 FROM retried AS r WHERE r.granularity = l.granularity AND r.id = l.id AND r.snapshot > l.snapshot
    )
  GROUP BY ALL
), counted AS (
  SELECT granularity, stage, state, reason, id, "row",
    any_value(detail ORDER BY snapshot DESC, detail) AS detail,
    any_value(source_id ORDER BY snapshot DESC, source_id) AS source_id, max(n) AS n
  FROM in_tables GROUP BY granularity, stage, state, reason, id, "row"
), by_plan AS (
  SELECT granularity, stage, state, reason, id, "row", detail, source_id, 1 AS n
  FROM losses WHERE state = 'excluded' AND stage = 'plan' AND snapshot = $last AND "table" <> 'rejects'
)
SELECT
  granularity, stage, state, reason, sum(n)::BIGINT AS num,
  arg_min({id: id, source_id: source_id, detail: detail, "row": "row"}, {id: id, "row": "row"}, $num_examples)
    AS examples
FROM (SELECT * FROM counted UNION ALL BY NAME SELECT * FROM by_plan)
GROUP BY granularity, stage, state, reason
ORDER BY num DESC, granularity, stage, reason
