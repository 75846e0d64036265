-- Question: which parents does the plan leave out, and by which rule?
-- Grain: one row a parent that is in no sample. Narrow, since there can be many; see plan_excluded.
-- Reads: parents, placed, overlapping, barred. $has_groups: whether the metadata say which parents belong together.
CREATE OR REPLACE TEMP TABLE left_out AS
SELECT
  $granularity AS granularity, id, source_id,
  reason::ENUM ('overlaps_previous', 'missing_group_value', 'too_few_clips', 'filtered_by_where') AS reason
FROM (
  SELECT
    c.id, c.source_id,
    CASE
      WHEN o.id IS NOT NULL THEN 'overlaps_previous'
      WHEN $has_groups AND c.group_value IS NULL THEN 'missing_group_value'
      ELSE 'too_few_clips'
    END AS reason
  FROM parents AS c
  ANTI JOIN placed AS p ON p.id = c.id
  LEFT JOIN overlapping AS o ON o.id = c.id
  UNION ALL
  SELECT id, source_id, 'filtered_by_where' FROM barred
)
