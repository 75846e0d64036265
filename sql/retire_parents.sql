-- Question: what were the samples of a snapshot that is retired made of?
-- Grain: one row a sample. Reads: going. Planning takes these parents for used, as it does those of published samples.
CREATE OR REPLACE TEMP VIEW retired AS
SELECT shard, key, parents FROM going
