-- Question: which samples differ, a page after the other?
-- Grain: one row a sample, at most $num, in their order. Reads: changed. Parameters: $after (a place), $num.
SELECT granularity, key, status, fields FROM changed WHERE place > $after AND place <= $after + $num ORDER BY place
