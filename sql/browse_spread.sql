-- Question: how are the values of one quantity spread?
-- Grain: one row a bin that is not empty. Reads: measured (value). Parameters: $low, $width, $num.
SELECT least(floor((value - $low) / $width), $num - 1)::INTEGER AS bin, count(*)::BIGINT AS n
FROM measured WHERE value IS NOT NULL
GROUP BY bin ORDER BY bin
