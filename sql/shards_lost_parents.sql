-- Question: which samples name a parent that is neither a published sample nor an accepted clip?
-- Grain: one row a sample. Reads: samples, clips. Out: key, tar, parents (those that are not there).
SELECT s.key, s.tar, list(s.parent ORDER BY s.parent) AS parents
FROM (SELECT key, tar, unnest(parents) AS parent FROM samples) AS s
ANTI JOIN (SELECT key AS parent FROM samples UNION ALL SELECT clip_id FROM clips) AS known USING (parent)
GROUP BY s.key, s.tar
ORDER BY s.key, s.tar
