-- Question: which long texts need a summary?
-- Grain: one row a sample of the parent granularity that is neither summarised nor rejected yet, and not barred.
-- Reads: samples, settled, barred. Out: key (of the summary: gex_pipeline.shard_format.make_key's of one parent),
--   parent_id, clip_rank (by the parent's key, from 1).
CREATE OR REPLACE TEMP TABLE long_texts AS
SELECT
  left(sha256($granularity || chr(10) || key), 32) AS key, key AS parent_id,
  row_number() OVER (ORDER BY key) AS clip_rank
FROM samples
WHERE key NOT IN (SELECT id FROM settled) AND key NOT IN (SELECT id FROM barred)
