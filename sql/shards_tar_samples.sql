-- Question: which samples do these tars hold?
-- Grain: one row a sample. Reads: receipts (what members say, shard is the tar's place in the list), shard_list.
-- Out: as shards_samples.sql.
CREATE OR REPLACE TEMP VIEW samples AS
SELECT
  r.* REPLACE (coalesce(r.scores, '{}')::JSON::MAP(VARCHAR, DOUBLE) AS scores), s.tar, s.snapshot
FROM receipts AS r
JOIN shard_list AS s ON s.shard = r.shard
