-- Question: where does each parent go?
-- Grain: one row a parent inside a sample. Reads: parts, sharded. Narrow, so that what follows can be wide.
CREATE OR REPLACE TEMP TABLE placed AS
SELECT p.id, g.key_rank, p.position
FROM parts AS p JOIN sharded AS g USING (group_value, session, part)
