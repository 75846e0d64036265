-- Question: what is wrong with whole tars?
-- Grain: one row a tar, $num_named of them; num_all counts all. Reads: indexed, present_tars.
SELECT detail, count(*) OVER () AS num_all
FROM indexed AS i
SEMI JOIN present_tars AS p ON p.uri = i.uri AND p.num_bytes = i.tar_bytes AND p.modified_s = i.tar_modified_s
WHERE problem = 'tar'
ORDER BY detail LIMIT $num_named
