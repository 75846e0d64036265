-- Question: what are the parts when groups have no upper limit? One a session.
CREATE OR REPLACE TEMP VIEW parts AS
SELECT id, group_value, session, 0 AS part, position, duration_s FROM sessions
