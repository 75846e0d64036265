-- Question: which parents come together when there is no metadata to group by? (GEXIA appendix A, table 6)
-- Grain: one row a parent. A seeded shuffle, cut into runs of $group_size.
CREATE OR REPLACE TEMP TABLE ordered AS
SELECT
  id, (shuffled // $group_size)::VARCHAR AS group_value, source_id, start_s, end_s, duration_s,
  shuffled % $group_size + 1 AS position,
  NULL::DOUBLE AS previous_end_s
FROM (
  SELECT *, row_number() OVER (ORDER BY sha256($seed || chr(10) || id), id) - 1 AS shuffled
  FROM parents
)
