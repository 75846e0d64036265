-- Question: which parents need no more thought?
-- Grain: one row a parent that is in a published sample of $granularity, or that an earlier snapshot rejected and
--   nothing has tried again since. Reads: published, losses_before, retried (both with the number of their snapshot).
-- Parents that a rule excluded are thought about again: late clips can complete their group.
CREATE OR REPLACE TEMP TABLE settled AS
SELECT unnest(parents) AS id FROM published
UNION
SELECT l.id FROM losses_before AS l
WHERE l.granularity = $granularity AND l.state = 'rejected' AND l.stage <> 'ingest'
  AND NOT EXISTS (
    SELECT 1 FROM retried AS r WHERE r.granularity = l.granularity AND r.id = l.id AND r.snapshot > l.snapshot
  )
