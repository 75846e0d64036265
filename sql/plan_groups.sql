-- Question: which groups are long enough to become samples, and what are their keys?
-- Grain: one row a group. Reads: parts(id, group_value, session, part, position, duration_s).
-- The key is gex_pipeline.shard_format.make_key's: the granularity and the parents' ids in order.
CREATE OR REPLACE TEMP TABLE groups AS
SELECT
  group_value, session, part,
  left(sha256($granularity || chr(10) || string_agg(id, chr(10) ORDER BY position)), 32) AS key,
  count(*) AS num_members,
  sum(duration_s) AS duration_s
FROM parts
GROUP BY group_value, session, part
HAVING count(*) >= $min_clips
