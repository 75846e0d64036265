-- Question: which rejects of earlier snapshots still stand, and could be tried again?
-- Grain: one row a reject of a stage behind ingest (ingest reads all metadata again in every run).
-- Reads: losses_before, retried_before (both with the number of their snapshot), retired_samples(key): what came of a
--   sample that was retired since cannot be tried again.
CREATE OR REPLACE TEMP TABLE standing AS
SELECT granularity, stage, reason, id, source_id, detail
FROM losses_before AS l
WHERE state = 'rejected' AND stage <> 'ingest'
  AND NOT EXISTS (
    SELECT 1 FROM retried_before AS r
    WHERE r.granularity = l.granularity AND r.id = l.id AND r.snapshot > l.snapshot
  )
  AND NOT EXISTS (SELECT 1 FROM retired_samples AS s WHERE s.key = l.id)
