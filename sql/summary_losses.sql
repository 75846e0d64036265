-- Question: which long texts got no summary, and why?
-- Grain: one row a parent whose summary was rejected.
CREATE OR REPLACE TEMP TABLE summary_losses AS
SELECT
  $granularity AS granularity, 'summarise' AS stage, state, reason, detail, parent_id AS id, source_id,
  to_json({key: key, raw_text: raw_text, attempts: attempts, scores: scores})::VARCHAR AS row
FROM parts WHERE state = 'rejected'
