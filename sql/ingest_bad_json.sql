-- Question: which lines were the JSON rows of nothing?
-- Grain: one row a loss whose row has no value. Reads: bad_lines(number, detail, content). The lines and the losses are
--   as many where not more were found than are described; which of them belong together makes no difference.
UPDATE ingest_losses AS l
SET detail = b.detail, "row" = b.content
FROM (
  SELECT rowid AS place, row_number() OVER (ORDER BY rowid) AS number FROM ingest_losses
  WHERE reason = 'unreadable_row' AND regexp_full_match("row", '\{("([^"\\]|\\.)*":null,?)*\}')
) AS e JOIN bad_lines AS b USING (number)
WHERE l.rowid = e.place
