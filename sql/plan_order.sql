-- Question: in which order do the parents of one group value come?
-- Grain: one row a parent whose group value has at least $min_clips of them.
-- Reads: parents(id, group_value, source_id, start_s, end_s, duration_s). previous_end_s is NULL where the one
--   before is of another source.
CREATE OR REPLACE TEMP TABLE ordered AS
WITH enough AS (
  SELECT group_value FROM parents WHERE group_value IS NOT NULL
  GROUP BY group_value HAVING count(*) >= $min_clips
)
SELECT
  id, group_value, source_id, start_s, end_s, duration_s,
  row_number() OVER in_time AS position,
  CASE WHEN lag(source_id) OVER in_time = source_id THEN lag(end_s) OVER in_time END AS previous_end_s
FROM parents SEMI JOIN enough USING (group_value)
WINDOW in_time AS (PARTITION BY group_value ORDER BY source_id, start_s, end_s, id)
