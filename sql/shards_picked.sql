-- Question: which samples does chance pick?
-- Grain: one row a sample, at most $num; the same seed picks the same. Reads: samples. Parameters: $num, $seed.
SELECT * FROM samples ORDER BY md5($seed::VARCHAR || ' ' || key), granularity, tar LIMIT $num
