-- Question: which samples does an output hold?
-- Grain: one row a sample. Reads: receipts, shard_list (granularity, shard, tar, snapshot). Out: the receipt's columns
--   with scores as a map from name to value, and tar and snapshot.
CREATE OR REPLACE TEMP VIEW samples AS
SELECT
  r.* REPLACE (CASE WHEN json_valid(r.scores) THEN r.scores ELSE '{}' END::JSON::MAP(VARCHAR, DOUBLE) AS scores), s.tar, s.snapshot
FROM receipts AS r
JOIN shard_list AS s ON s.granularity = r.granularity AND s.shard = r.shard
