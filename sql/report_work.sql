-- Question: what did each stage of a run spend?
-- Grain: a stage of a granularity, in the order in which they began. Reads: timeline. Out: seconds by the clock (of a
-- stage that was killed: from its first shard to its last), of processors, of what Ray held; shards, samples, bytes.
SELECT
  stage,
  granularity,
  coalesce(sum(seconds) FILTER (shard IS NULL), max(started_s + seconds) - min(started_s)) AS seconds,
  sum(cpu_s) AS cpu_s,
  coalesce(sum(held_cpu_s), 0) AS held_cpu_s,
  coalesce(sum(held_gpu_s), 0) AS held_gpu_s,
  count(shard) AS num_shards,
  max(seconds) FILTER (shard IS NOT NULL) AS longest_shard_s,
  coalesce(sum(num_samples), 0)::BIGINT AS num_samples,
  coalesce(sum(bytes_read), 0)::BIGINT AS bytes_read,
  coalesce(sum(bytes_written), 0)::BIGINT AS bytes_written
FROM timeline
GROUP BY stage, granularity
ORDER BY min(started_s), stage
