-- Question: which parents were shards planned with and built without?
-- Grain: one row a parent of these shards that the build lost. Reads: plan, losses. Parameters: $granularity, $shards.
SELECT DISTINCT p.shard, p.id
FROM plan AS p
JOIN losses AS l ON l.id = p.id AND l.granularity = $granularity AND l.stage = 'build'
WHERE list_contains($shards, p.shard)
