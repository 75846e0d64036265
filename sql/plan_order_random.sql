-- Question: which parents come together when there is no metadata to group by? (GEXIA appendix A, table 6)
-- Grain: one row a parent. A seeded shuffle, cut into runs of $group_size. No times: such groups have no gaps and no
--   overlaps, so nothing asks for them.
CREATE OR REPLACE TEMP TABLE ordered AS
SELECT
  id, (shuffled // $group_size)::VARCHAR AS group_value, duration_s,
  shuffled % $group_size + 1 AS position
FROM (
  SELECT id, duration_s, row_number() OVER (ORDER BY sha256($seed || chr(10) || id), id) - 1 AS shuffled
  FROM parents
)
