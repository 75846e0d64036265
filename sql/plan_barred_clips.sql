-- Question: which clips does the recipe's predicate bar from new samples?
-- Grain: one row a clip that is still to be thought about. Reads: unsettled, barred_clips.
CREATE OR REPLACE TEMP TABLE barred AS
SELECT id, source_id FROM unsettled SEMI JOIN barred_clips ON clip_id = id
