-- Question: which losses come next?
-- Grain: one row a loss, at most $num, in order. Reads: losses. Parameters: $after (the last one seen, 0 at the
--   beginning), $granularity, $stage, $state, $reason (NULL: any), $term (in detail, id or source).
SELECT id, granularity, stage, state, reason, detail, loss_id, source_id, "row", snapshot
FROM losses
WHERE id > $after
  AND ($granularity IS NULL OR granularity = $granularity)
  AND ($stage IS NULL OR stage = $stage)
  AND ($state IS NULL OR state = $state)
  AND ($reason IS NULL OR reason = $reason)
  AND ($term IS NULL OR contains(lower(concat_ws(' ', detail, loss_id, source_id, "row")), lower($term)))
ORDER BY id LIMIT $num
