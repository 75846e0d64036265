-- Question: why are the other parents not in samples?
-- Grain: one row a state and reason.
SELECT state, reason, count(*) AS n
FROM (
  SELECT state, reason FROM build_losses
  UNION ALL SELECT state, reason FROM summary_losses
  UNION ALL SELECT state, reason FROM excluded
)
GROUP BY state, reason ORDER BY n DESC, reason
