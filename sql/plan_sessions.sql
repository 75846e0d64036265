-- Question: where does a gap longer than $max_gap_s split a group value's clips?
-- Grain: one row a parent; session counts the gaps before it. Gaps are measured inside one source only.
CREATE OR REPLACE TEMP TABLE sessions AS
SELECT
  id, group_value, position, duration_s,
  sum(CASE WHEN start_s - previous_end_s > $max_gap_s THEN 1 ELSE 0 END)
    OVER (PARTITION BY group_value ORDER BY position) AS session
FROM ordered
