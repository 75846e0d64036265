-- Question: which samples does the recipe's predicate bar from what is made of them, since a clip in them fails it?
-- Grain: one row a sample that is still to be thought about. Reads: samples, settled, barred_clips.
CREATE OR REPLACE TEMP TABLE barred AS
SELECT DISTINCT id, source_id
FROM (
  SELECT key AS id, source_id, unnest(list_transform(segments, lambda segment: segment.clip_id)) AS clip_id
  FROM samples ANTI JOIN settled ON id = key
)
SEMI JOIN barred_clips USING (clip_id)
