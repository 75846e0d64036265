-- Question: what are the sessions when gaps do not matter? One a group value.
CREATE OR REPLACE TEMP VIEW sessions AS
SELECT id, group_value, position, duration_s, 0 AS session FROM ordered
