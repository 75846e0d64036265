-- Question: which samples could be shown?
-- Grain: one row a sample, at most $num a granularity. Reads: receipts. Parameters: $num, $max_bytes.
-- Small media first, then as many different sources as there are, then by key: the same output gives the same choice.
WITH numbered AS (
  SELECT granularity, key, source_id, media_size_bytes <= $max_bytes AS is_small,
    row_number() OVER (PARTITION BY granularity, source_id ORDER BY media_size_bytes <= $max_bytes DESC, key) AS nth
  FROM receipts
)
SELECT granularity, key, source_id
FROM numbered
QUALIFY row_number() OVER (PARTITION BY granularity ORDER BY is_small DESC, nth, key) <= $num
ORDER BY granularity, is_small DESC, nth, key
