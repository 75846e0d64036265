-- Question: which samples that stay need what is retired, as their parent or as the place of their media?
-- Grain: one row a shard that stays. Reads: going(key), kept(granularity, shard, key, parents, media_uri).
--   $tars: the tars that go, relative to the output.
SELECT
  granularity, shard, count(*) AS num, min(key) AS key,
  count(*) FILTER (media_uri IN (SELECT unnest($tars::VARCHAR[]))) AS num_media
FROM kept
WHERE media_uri IN (SELECT unnest($tars::VARCHAR[]))
  OR key IN (SELECT k.key FROM (SELECT key, unnest(parents) AS parent FROM kept) AS k JOIN going ON going.key = k.parent)
GROUP BY granularity, shard
ORDER BY granularity, shard
