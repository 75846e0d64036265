-- Question: which parents does the plan leave out, and by which rule?
-- Grain: one row a parent that is in no sample.
CREATE OR REPLACE TEMP TABLE excluded AS
SELECT
  $granularity AS granularity,
  'plan' AS stage,
  CASE WHEN o.id IS NOT NULL THEN 'rejected' ELSE 'excluded' END AS state,
  CASE
    WHEN o.id IS NOT NULL THEN 'overlaps_previous'
    WHEN c.group_value IS NULL THEN 'missing_group_value'
    ELSE 'too_few_clips'
  END AS reason,
  '' AS detail,
  c.id, c.source_id, '' AS row
FROM parents AS c
ANTI JOIN (SELECT p.id FROM parts AS p SEMI JOIN groups USING (group_value, session, part)) AS placed ON placed.id = c.id
LEFT JOIN overlapping AS o ON o.id = c.id
