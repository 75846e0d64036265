-- Question: which of the standing rejects does this run try again?
-- Grain: one row a reject. Reads: standing. Parameters: $reasons; $granularities (none: all).
CREATE OR REPLACE TEMP TABLE retried_now AS
SELECT granularity, id, reason FROM standing
WHERE list_contains($reasons, reason) AND (len($granularities) = 0 OR list_contains($granularities, granularity))
