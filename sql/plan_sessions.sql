-- Question: where does a gap longer than $max_gap_s split a group value's clips?
-- Grain: one row a parent; session counts the gaps before it. Gaps are measured inside one source only, from the
--   latest end before: a short clip inside a long one begins no gap.
CREATE OR REPLACE TEMP TABLE sessions AS
SELECT
  id, group_value, position, duration_s,
  sum(CASE WHEN previous_end_s IS NOT NULL AND start_s - latest_end_s > $max_gap_s THEN 1 ELSE 0 END)
    OVER (PARTITION BY group_value ORDER BY position) AS session
FROM (
  SELECT *, max(end_s) OVER (
    PARTITION BY group_value, source_id ORDER BY position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
  ) AS latest_end_s
  FROM ordered
)
