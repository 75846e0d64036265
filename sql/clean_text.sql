-- Question: what is a caption as one clean line?
-- Takes: any text. Gives: NFC, control and zero-width characters gone, single spaces, trimmed.
-- NUL goes first: nfc_normalize takes it for the end of a text that is not ASCII.
CREATE OR REPLACE TEMP MACRO clean_text(t) AS
  CASE
    WHEN regexp_matches(t, '[^ -~]|  |^ | $') THEN
      trim(regexp_replace(
        regexp_replace(
          regexp_replace(nfc_normalize(replace(t, chr(0), ' ')), '[\x{200B}\x{2060}\x{FEFF}\x{00AD}\x{200E}\x{200F}\x{202A}-\x{202E}\x{2066}-\x{2069}]', '', 'g'),
          '[\p{Cc}\p{Zs}\p{Zl}\p{Zp}]', ' ', 'g'),
        ' {2,}', ' ', 'g'))
    ELSE t
  END
