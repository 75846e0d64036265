-- Question: which parents does the plan leave out, and by which rule?
-- Grain: one row a parent that is in no sample. Narrow, since there can be many; see plan_excluded.
CREATE OR REPLACE TEMP TABLE left_out AS
SELECT
  $granularity AS granularity, c.id, c.source_id,
  (CASE
    WHEN o.id IS NOT NULL THEN 'overlaps_previous'
    WHEN c.group_value IS NULL THEN 'missing_group_value'
    ELSE 'too_few_clips'
  END)::ENUM ('overlaps_previous', 'missing_group_value', 'too_few_clips') AS reason
FROM parents AS c
ANTI JOIN (SELECT p.id FROM parts AS p SEMI JOIN groups USING (group_value, session, part)) AS placed ON placed.id = c.id
LEFT JOIN overlapping AS o ON o.id = c.id
