-- Question: what do the metadata say of these source clips?
-- Grain: one row a clip, with all columns of its metadata. Reads: clips. Parameter: $ids.
SELECT * FROM clips WHERE clip_id IN (SELECT unnest($ids::VARCHAR[])) ORDER BY source_id, start_s, clip_id
