-- Question: how many summaries did the fallback write, over all snapshots?
-- Grain: one row. Reads: summaries, with its snapshot. Out: num_summaries, num_fallback.
-- A key that a retry summarised again counts once, as the newest snapshot has it.
SELECT
  count(*)::BIGINT AS num_summaries,
  count(*) FILTER (is_fallback)::BIGINT AS num_fallback
FROM (SELECT arg_max(fallback_reason IS NOT NULL, snapshot) AS is_fallback FROM summaries GROUP BY key)
