-- Question: between which bounds do the values of one quantity lie?
-- Grain: one row. Reads: measured (value).
SELECT min(value)::DOUBLE AS low, max(value)::DOUBLE AS high, count(value)::BIGINT AS num FROM measured
