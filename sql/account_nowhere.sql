-- Question: which parents are in no account?
-- Grain: one row a parent that the plan forgot. Reads: parents, receipts, build_losses, summary_losses, excluded.
WITH ends AS (
  SELECT unnest(parents) AS id FROM receipts
  UNION ALL SELECT id FROM build_losses
  UNION ALL SELECT id FROM summary_losses
  UNION ALL SELECT id FROM excluded
)
SELECT id FROM parents ANTI JOIN ends USING (id) ORDER BY id
