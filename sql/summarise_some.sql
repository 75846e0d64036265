-- Question: which long texts come next?
-- Grain: one row a text, in the order of the summaries' keys. Reads: asked. Parameters: $first, $end (not included).
SELECT * EXCLUDE (number) FROM asked WHERE number >= $first AND number < $end ORDER BY number
