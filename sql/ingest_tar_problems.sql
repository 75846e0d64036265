-- Question: which keys have a member that is of no use, or several?
-- Grain: one row a key without exactly one video. Reads: indexed, present_tars, media_index.
CREATE OR REPLACE TEMP TABLE tar_problems AS
WITH here AS (
  SELECT i.* FROM indexed AS i
  SEMI JOIN present_tars AS p ON p.uri = i.uri AND p.num_bytes = i.tar_bytes AND p.modified_s = i.tar_modified_s
)
SELECT key, min(problem) AS reason, string_agg(detail, '; ' ORDER BY detail) AS detail
FROM here ANTI JOIN media_index USING (key)
WHERE problem IS NOT NULL AND key IS NOT NULL
GROUP BY key
UNION ALL
SELECT key, 'media_ambiguous', count(*) || ' videos have its key, in ' || string_agg(DISTINCT parse_filename(uri), ', ')
FROM here SEMI JOIN (SELECT key FROM media_index WHERE num_found > 1) AS several USING (key)
WHERE problem IS NULL
GROUP BY key
