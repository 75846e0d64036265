-- Question: which keys stand in more than one place?
-- Grain: one row a key and tar that holds it. Reads: samples. Out: key, tar, tars (all of them), num.
SELECT key, tar, tars, num
FROM (
  SELECT key, list(DISTINCT tar ORDER BY tar) AS tars, count(*)::BIGINT AS num FROM samples GROUP BY key
  HAVING count(*) > 1
), (SELECT unnest(tars) AS tar)
ORDER BY key, tar
