-- Question: what does a worker need to know to build these shards again, and where do their parents' media lie now?
-- Grain: one row a parent of these shards, as in the plan; is_elsewhere: the plan has another place. Reads: plan; moved
--   (clip_id, a place, snapshot). Parameters: $shards; $output, which ends in a slash. The newest place of a clip counts.
--   A parent that is a sample has facts; it lies in a shard of the output, which may have been moved as a whole.
CREATE OR REPLACE TEMP TABLE plan_now AS
WITH p AS (
  SELECT * FROM plan WHERE list_contains($shards, shard)
), m AS (
  SELECT clip_id,
    arg_max({uri: media_uri, offset_bytes: media_offset_bytes, size_bytes: media_size_bytes, stamp: media_stamp}, snapshot)
      AS place
  FROM moved
  WHERE clip_id IN (SELECT id FROM p)
  GROUP BY clip_id
), placed AS (
  SELECT p.*, CASE
    WHEN m.clip_id IS NOT NULL THEN m.place
    ELSE {
      uri: CASE WHEN facts IS NULL THEN media_uri ELSE $output || regexp_extract(media_uri, '[^/]+/[^/]+$') END,
      offset_bytes: media_offset_bytes, size_bytes: media_size_bytes, stamp: media_stamp
    }
  END AS place
  FROM p LEFT JOIN m ON m.clip_id = p.id
)
SELECT
  * EXCLUDE (place) REPLACE (
    place.uri AS media_uri, place.offset_bytes AS media_offset_bytes, place.size_bytes AS media_size_bytes,
    place.stamp AS media_stamp
  ),
  (place.uri, place.offset_bytes, place.stamp) IS DISTINCT FROM (media_uri, media_offset_bytes, media_stamp)
    AS is_elsewhere
FROM placed
