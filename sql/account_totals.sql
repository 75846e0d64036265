-- Question: how many parents were thought about, and how many got into samples?
-- Grain: one row. What went in is counted in plan, excluded and summary_losses; what came out in the receipts.
SELECT
  (SELECT count(*) FROM (
    SELECT id FROM plan UNION SELECT id FROM excluded UNION SELECT id FROM summary_losses
  ))::BIGINT AS num_in,
  (SELECT coalesce(sum(len(parents)), 0) FROM receipts)::BIGINT AS num_used
