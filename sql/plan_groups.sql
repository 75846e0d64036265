-- Question: which groups are long enough to become samples, and what are their keys?
-- Grain: one row a group. Reads: parts(id, group_value, session, part, position, duration_s).
-- Two lists and their order: an aggregate with ORDER BY sorts every group by itself and takes more time and memory.
-- The key is gex_pipeline.shard_format.make_key's: the granularity and the parents' ids in order.
CREATE OR REPLACE TEMP TABLE groups AS
SELECT
  group_value, session, part,
  left(sha256($granularity || chr(10) || array_to_string(list_select(list(id), list_grade_up(list(position))), chr(10))),
    32) AS key,
  count(*) AS num_members,
  sum(duration_s) AS duration_s
FROM parts
GROUP BY group_value, session, part
HAVING count(*) >= $min_clips
