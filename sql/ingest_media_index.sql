-- Question: where does each key's video lie, and is there only one?
-- Grain: one row a key. A tar that was indexed again counts with its newest index.
CREATE OR REPLACE TEMP TABLE media_index AS
WITH newest AS (
  SELECT * FROM indexed
  QUALIFY tar_modified_s = max(tar_modified_s) OVER (PARTITION BY uri)
)
SELECT key, arg_min(uri, (uri, offset_bytes)) AS uri,
  arg_min(offset_bytes, (uri, offset_bytes)) AS offset_bytes,
  arg_min(size_bytes, (uri, offset_bytes)) AS size_bytes,
  count(*) AS num_found
FROM newest
GROUP BY key
