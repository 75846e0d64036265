-- Question: what is the order of the parents without those that overlap the one before?
-- Grain: one row a parent whose group value still has at least $min_clips of them. Reads: ordered, overlapping.
CREATE OR REPLACE TEMP TABLE ordered AS
SELECT
  id, group_value, source_id, start_s, end_s, duration_s, position,
  CASE WHEN lag(source_id) OVER in_order = source_id THEN lag(end_s) OVER in_order END AS previous_end_s
FROM (SELECT * FROM ordered ANTI JOIN overlapping USING (id)) AS kept
WINDOW in_order AS (PARTITION BY group_value ORDER BY position)
QUALIFY count(*) OVER (PARTITION BY group_value) >= $min_clips
