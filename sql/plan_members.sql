-- Question: what does each shard's worker need to know?
-- Grain: one row a parent inside a sample. Reads: placed, sharded, parents. In the order of the work: shards follow
--   the keys, so that two small numbers sort it. The sample's own columns are joined to the sorted rows, which
--   keeps them out of the sort; a reader of one shard sorts for itself and needs its rows to lie together only.
--   Clips have no segments, and operations give positions in types of their own; all plans have one schema.
CREATE OR REPLACE TEMP VIEW plan AS
SELECT
  g.shard, g.key, s.position::BIGINT AS position, s.id, g.group_value,
  s.source_id, s.start_s, s.end_s, s.duration_s, s.text,
  s.segments::STRUCT(
    clip_id VARCHAR, source_id VARCHAR, offset_s DOUBLE, duration_s DOUBLE, start_s DOUBLE, end_s DOUBLE, "text" VARCHAR
  )[] AS segments,
  s.facts,
  s.media_uri, s.media_offset_bytes, s.media_size_bytes, s.media_stamp, s.media_cut,
  s.new_text, s.source_text_digest, s.scores
FROM (
  SELECT p.key_rank, p.position, c.*
  FROM placed AS p JOIN parents AS c ON c.id = p.id
  ORDER BY p.key_rank, p.position
) AS s
JOIN sharded AS g USING (key_rank)
