-- Question: how are sessions that are too long cut into groups of at most $max_clips and $max_duration_s?
-- Grain: one row a parent; part counts the cuts before it. Filled in time order: a group takes clips until the
-- next one would not fit; one clip longer than the limit is a group of its own.
CREATE OR REPLACE TEMP TABLE parts AS
WITH too_long AS (
  SELECT group_value, session FROM sessions
  GROUP BY group_value, session
  HAVING count(*) > $max_clips OR sum(duration_s) > $max_duration_s
),
walks AS (
  SELECT group_value, session,
    list({'id': id, 'd': duration_s} ORDER BY position) AS clips
  FROM sessions SEMI JOIN too_long USING (group_value, session)
  GROUP BY group_value, session
),
cut AS (
  SELECT group_value, session, unnest(
    list_reduce(
      clips,
      lambda state, clip: CASE
        WHEN state.n > 0 AND (state.n >= $max_clips OR state.d + clip.d > $max_duration_s + 1e-6)
          THEN {'part': state.part + 1, 'n': 1, 'd': clip.d,
                'out': list_append(state.out, {'id': clip.id, 'part': state.part + 1})}
        ELSE {'part': state.part, 'n': state.n + 1, 'd': state.d + clip.d,
              'out': list_append(state.out, {'id': clip.id, 'part': state.part})}
      END,
      {'part': 0, 'n': 0, 'd': 0::DOUBLE, 'out': []::STRUCT(id VARCHAR, part INTEGER)[]}
    ).out
  ) AS placed
  FROM walks
)
SELECT s.id, s.group_value, s.session, coalesce(c.placed.part, 0) AS part, s.position, s.duration_s
FROM sessions AS s LEFT JOIN cut AS c ON c.placed.id = s.id
