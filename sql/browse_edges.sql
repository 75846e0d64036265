-- Question: which samples were made from which clips and samples?
-- Grain: one row a sample and parent. Reads: numbered_receipts, receipt_files. Parents as 64-bit hashes: ids would
--   take four times the room.
CREATE OR REPLACE TABLE browse.edges AS
SELECT hash(p.parent) AS parent, (f.number << 32) | p.file_row_number AS child
FROM (SELECT filename, file_row_number, unnest(parents) AS parent FROM numbered_receipts) AS p
JOIN receipt_files AS f ON f.path = p.filename
