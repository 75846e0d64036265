-- Question: which samples come of an operation that makes one out of each parent?
-- Grain: one row a parent, as a group of one.
CREATE OR REPLACE TEMP TABLE parts AS
SELECT id, id AS group_value, 0 AS session, 0 AS part, 1 AS position, duration_s FROM parents
