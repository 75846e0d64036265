-- Question: which clips begin before the last clip that was kept ends?
-- Grain: one row a clip to reject. A walk in time order: a rejected clip does not shadow the ones after it.
CREATE OR REPLACE TEMP TABLE overlapping AS
WITH suspects AS (
  SELECT DISTINCT group_value FROM ordered
  WHERE start_s < previous_end_s
),
walks AS (
  SELECT list({'id': id, 's': start_s, 'e': end_s} ORDER BY position) AS clips
  FROM ordered SEMI JOIN suspects USING (group_value)
  GROUP BY group_value, source_id
)
SELECT unnest(
  list_reduce(
    clips,
    lambda state, clip: CASE
      WHEN clip.s < state.kept_end
        THEN {'kept_end': state.kept_end, 'rejected': list_append(state.rejected, clip.id)}
      ELSE {'kept_end': clip.e, 'rejected': state.rejected}
    END,
    {'kept_end': '-infinity'::DOUBLE, 'rejected': []::VARCHAR[]}
  ).rejected
) AS id
FROM walks
