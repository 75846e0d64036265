-- Question: what is the mean of each score over the accepted samples?
-- Grain: one row a score. Reads: scores(key, state, score, value).
SELECT score, avg(value) AS mean FROM scores WHERE state = 'accepted' GROUP BY score ORDER BY score
