-- Question: what did each summary score, accepted or not?
-- Grain: one row a summary and score.
CREATE OR REPLACE TEMP TABLE summary_scores AS
SELECT key, state, name AS score, (scores::JSON ->> ('$."' || name || '"'))::DOUBLE AS value
FROM (SELECT key, state, scores, unnest(json_keys(scores)) AS name FROM parts)
