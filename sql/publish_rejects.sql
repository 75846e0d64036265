-- Question: what did the stages of a snapshot reject, and what did its builds have to leave out?
-- Grain: one row a clip or sample. What a plan excludes by rule stays in its own table: it is most of a large collection.
CREATE OR REPLACE TEMP VIEW rejects AS
SELECT * FROM losses
UNION ALL BY NAME
SELECT * FROM left_out WHERE state = 'rejected'
