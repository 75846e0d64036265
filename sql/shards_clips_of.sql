-- Question: what is known of these source clips?
-- Grain: one row a clip. Reads: clips. Parameter: $ids.
SELECT clip_id, source_id, start_s, end_s, "text", media_uri, media_offset_bytes, media_size_bytes
FROM clips
WHERE clip_id IN (SELECT unnest($ids::VARCHAR[]))
ORDER BY source_id, start_s, clip_id
