-- Question: which values do the distributions compare?
-- Grain: one row a clip or sample and quantity. Reads: clips, receipts. Out: granularity (NULL for the source
--   clips as their metadata say them), quantity, value. Pictures have no duration.
CREATE OR REPLACE TEMP VIEW measured AS
SELECT NULL::VARCHAR AS granularity, 'duration_s' AS quantity, (end_s - start_s)::DOUBLE AS value FROM clips
UNION ALL SELECT NULL::VARCHAR, 'num_words', num_words::DOUBLE FROM clips
UNION ALL SELECT granularity, 'duration_s', duration_s FROM receipts WHERE duration_s > 0
UNION ALL SELECT granularity, 'num_words', num_words::DOUBLE FROM receipts
