-- Question: which place has a sample in the order of keys?
-- Grain: one row a sample. Reads: numbered_receipts (receipts with filename and file_row_number), receipt_files
--   (path, number). Out: id is unique and says where the whole row lies: the file's number, then the row in it.
CREATE OR REPLACE TEMP TABLE ranks AS
SELECT id, row_number() OVER (ORDER BY key, id) AS rank
FROM (
  SELECT (f.number << 32) | r.file_row_number AS id, r.key
  FROM numbered_receipts AS r JOIN receipt_files AS f ON f.path = r.filename
)
