-- Question: where does each key's video lie, and is there only one?
-- Grain: one row a key. Only tars that are there now count, as they are now.
CREATE OR REPLACE TEMP TABLE media_index AS
SELECT key, arg_min(i.uri, (i.uri, offset_bytes)) AS uri,
  arg_min(offset_bytes, (i.uri, offset_bytes)) AS offset_bytes,
  arg_min(size_bytes, (i.uri, offset_bytes)) AS size_bytes,
  arg_min(stamp, (i.uri, offset_bytes)) AS stamp,
  count(*) AS num_found
FROM indexed AS i
SEMI JOIN present_tars AS p ON p.uri = i.uri AND p.num_bytes = i.tar_bytes AND p.modified_s = i.tar_modified_s
WHERE problem IS NULL
GROUP BY key
