-- Question: what is written about the parents that the plan leaves out?
-- Grain: one row a parent that is in no sample, as every table of losses has it. Reads: left_out.
CREATE OR REPLACE TEMP VIEW excluded AS
SELECT
  granularity,
  'plan' AS stage,
  CASE reason WHEN 'overlaps_previous' THEN 'rejected' ELSE 'excluded' END AS state,
  reason::VARCHAR AS reason,
  '' AS detail,
  id, source_id, '' AS row
FROM left_out
