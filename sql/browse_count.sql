-- Question: how many samples match?
-- Grain: one row. Reads: matching.
SELECT count(*)::BIGINT AS num FROM matching
