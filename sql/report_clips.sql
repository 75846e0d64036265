-- Question: what did the source clips hold, as their metadata say it?
-- Grain: one row. Reads: clips.
SELECT
  count(*)::BIGINT AS samples,
  count(DISTINCT source_id)::BIGINT AS sources,
  coalesce(sum(end_s - start_s), 0)::DOUBLE AS duration_s,
  coalesce(sum(num_words), 0)::BIGINT AS words
FROM clips
