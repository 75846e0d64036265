-- Question: which captions has each source, in time order?
-- Grain: one row a source. Reads: read_clips, duplicate_rows. In the order in which integrate joins them.
SELECT source_id, list(text ORDER BY start_s, end_s, clip_id) AS captions
FROM read_clips AS r
WHERE reason IS NULL AND r.rowid NOT IN (SELECT duplicate FROM duplicate_rows)
GROUP BY source_id
