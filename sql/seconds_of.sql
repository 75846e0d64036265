-- Question: how many seconds does a timestamp's text mean?
-- Takes: text as HH:MM:SS(.mmm), MM:SS(.mmm) or plain seconds. Gives: seconds to the millisecond, or NULL.
-- A negative exponent is how tables of numbers write times next to nothing.
CREATE OR REPLACE TEMP MACRO seconds_of(t) AS
  CASE
    WHEN regexp_full_match(t, '[0-9]{1,6}:[0-5]?[0-9]:[0-5]?[0-9]([.,][0-9]+)?') THEN
      round((split_part(t, ':', 1)::DOUBLE * 3600 + split_part(t, ':', 2)::DOUBLE * 60
             + replace(split_part(t, ':', 3), ',', '.')::DOUBLE) * 1000) / 1000
    WHEN regexp_full_match(t, '[0-9]{1,6}:[0-5]?[0-9]([.,][0-9]+)?') THEN
      round((split_part(t, ':', 1)::DOUBLE * 60 + replace(split_part(t, ':', 2), ',', '.')::DOUBLE) * 1000) / 1000
    WHEN regexp_full_match(t, '([0-9]{1,9}([.][0-9]*)?|[.][0-9]+)([eE]-[0-9]{1,3})?') THEN
      round(t::DOUBLE * 1000) / 1000
  END
