-- Question: what are mean and standard deviation of each score over the accepted samples?
-- Grain: one row a score. Reads: scores(key, state, score, value). Out: std is of the population.
SELECT score, count(*) AS num, avg(value) AS mean, stddev_pop(value) AS std
FROM scores
WHERE state = 'accepted'
GROUP BY score
ORDER BY score
