-- Question: what does each shard's worker need to know?
-- Grain: one row a parent inside a sample. Reads: sharded, parts, parents. key_rank stands for shard and key where
--   the order of the work is meant.
CREATE OR REPLACE TEMP VIEW plan AS
SELECT
  g.shard, g.key, g.key_rank, p.position, p.id, g.group_value,
  c.source_id, c.start_s, c.end_s, c.duration_s, c.text, c.segments, c.facts,
  c.media_uri, c.media_offset_bytes, c.media_size_bytes, c.media_cut,
  c.new_text, c.source_text_digest, c.scores
FROM parts AS p
JOIN sharded AS g USING (group_value, session, part)
JOIN parents AS c ON c.id = p.id
