-- Question: which snapshots need what others hold that may go, as their parents or as the place of their media?
-- Grain: one row a snapshot that needs, a snapshot it needs, a granularity.
-- Reads: receipts(granularity, shard, key, parents, media_uri). $granularities, $shards, $snapshots, $tars: what is
--   published, an item a shard, tars relative to the output. $going: the snapshots that may go.
WITH
  places AS (
    SELECT
      unnest($granularities::VARCHAR[]) AS granularity, unnest($shards::BIGINT[]) AS shard,
      unnest($snapshots::BIGINT[]) AS snapshot, unnest($tars::VARCHAR[]) AS tar
  ),
  samples AS (SELECT places.snapshot, receipts.* FROM receipts JOIN places USING (granularity, shard)),
  needs AS (
    SELECT child.snapshot, parent.snapshot AS needed, child.granularity, child.key, FALSE AS is_media
    FROM (SELECT snapshot, granularity, key, unnest(parents) AS parent FROM samples) AS child
    JOIN samples AS parent ON parent.key = child.parent
    UNION ALL
    SELECT samples.snapshot, places.snapshot, samples.granularity, samples.key, TRUE
    FROM samples JOIN places ON places.tar = samples.media_uri
  )
SELECT
  snapshot, needed, granularity, count(DISTINCT key) AS num, min(key) AS key,
  count(*) FILTER (is_media) AS num_media
FROM needs
WHERE snapshot <> needed AND needed IN (SELECT unnest($going::BIGINT[]))
GROUP BY snapshot, needed, granularity
ORDER BY needed, snapshot, granularity
