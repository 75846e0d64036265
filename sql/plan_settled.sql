-- Question: which parents need no more thought?
-- Grain: one row a parent that is in a published sample of $granularity, or that an earlier snapshot rejected.
-- Parents that a rule excluded are thought about again: late clips can complete their group.
CREATE OR REPLACE TEMP TABLE settled AS
SELECT unnest(parents) AS id FROM published
UNION
SELECT id FROM losses_before WHERE granularity = $granularity AND state = 'rejected' AND stage <> 'ingest'
