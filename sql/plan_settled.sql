-- Question: which parents need no more thought?
-- Grain: one row a parent that is in a published sample of $granularity, or that stands rejected and that this run does
--   not try again. Reads: published, retired, standing, retried_now.
-- Parents that a rule excluded are thought about again: late clips can complete their group.
CREATE OR REPLACE TEMP TABLE settled AS
SELECT unnest(parents) AS id FROM published
UNION
SELECT unnest(parents) AS id FROM retired
UNION
SELECT id FROM standing ANTI JOIN retried_now USING (granularity, id) WHERE granularity = $granularity
