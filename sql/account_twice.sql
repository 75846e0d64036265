-- Question: is any parent accounted for more than once?
-- Grain: one row a parent that ends in two places. Reads: receipts, build_losses, summary_losses, excluded.
WITH ends AS (
  SELECT unnest(parents) AS id, 'used' AS how FROM receipts
  UNION ALL SELECT id, state || ' at build' FROM build_losses
  UNION ALL SELECT id, state || ' at summary' FROM summary_losses
  UNION ALL SELECT id, state || ' by plan' FROM excluded
), twice AS (
  SELECT id FROM ends GROUP BY id HAVING count(*) > 1  -- without a text a parent: they are all parents there are
)
SELECT id, string_agg(how, ', ' ORDER BY how) AS ends
FROM ends SEMI JOIN twice USING (id)
GROUP BY id
ORDER BY id
