-- Question: which clips of earlier snapshots lie elsewhere now, since their tar was written anew?
-- Grain: one row a clip. Reads: known_places, indexed (all tars there ever were), media_index (those there are).
CREATE OR REPLACE TEMP TABLE moved_clips AS
SELECT c.clip_id, n.uri AS media_uri, n.offset_bytes AS media_offset_bytes, n.size_bytes AS media_size_bytes,
  n.stamp AS media_stamp
FROM known_places AS c
JOIN indexed AS o ON o.uri = c.media_uri AND o.offset_bytes = c.media_offset_bytes AND o.stamp = c.media_stamp
JOIN media_index AS n ON n.key = o.key AND n.num_found = 1
WHERE (n.uri, n.offset_bytes, n.stamp) <> (c.media_uri, c.media_offset_bytes, c.media_stamp)
QUALIFY row_number() OVER (PARTITION BY c.clip_id ORDER BY n.key) = 1
