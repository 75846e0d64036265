-- Question: what does each metadata row say, and what is wrong with it?
-- Grain: one row an input row. Reads: raw_clips(source_text, start_text, end_text, caption_text, media_text,
--   media_unsafe, passes, input). Out: the same, read, with clip_id and the first reason against it.
-- Zero-width joiners stay in captions (see clean_text): scripts and emoji need them. A caption of nothing else is none.
-- Marks of direction and joiners stay in ids and paths too: files are called so. A source id is at most 200 bytes, so
--   that a file name made of it and two times is possible. One that is written with an exponent is not the id that was
--   meant: a program took it for a number and kept the first of its digits, which others begin with, too.
CREATE OR REPLACE TEMP TABLE read_clips AS
WITH parsed AS (
  SELECT
    trim(source_text) AS source_id,
    start_text, end_text,
    seconds_of(trim(start_text)) AS start_s,
    seconds_of(trim(end_text)) AS end_s,
    clean_text(caption_text) AS text,
    coalesce(caption_text <> clean_text(caption_text), false) AS text_cleaned,
    media_text, media_unsafe, passes, input
  FROM raw_clips
)
SELECT
  * REPLACE (  -- only losses tell how the times were written, or where the media would have been
    CASE WHEN reason IS NOT NULL THEN start_text END AS start_text,
    CASE WHEN reason IS NOT NULL THEN end_text END AS end_text
  )
FROM (SELECT
  CASE WHEN start_s IS NOT NULL AND end_s IS NOT NULL AND source_id IS NOT NULL THEN
    left(sha256(source_id || chr(31) || (start_s * 1000)::BIGINT || chr(31) || (end_s * 1000)::BIGINT), 32)
  END AS clip_id,
  *,
  CASE
    WHEN source_id IS NULL AND start_text IS NULL AND end_text IS NULL AND text IS NULL THEN 'unreadable_row'
    WHEN source_id IS NULL OR source_id = ''
      OR (contains(source_id, '+') AND regexp_full_match(source_id, '-?[0-9]([.][0-9]+)?[eE][+][0-9]+'))
      THEN 'missing_source_id'
    WHEN regexp_matches(source_id, '[ /\\\p{Cc}\p{Zl}\p{Zp}]') OR source_id[1] = '.' OR strlen(source_id) > 200
      THEN 'unsafe_source_id'
    WHEN start_s IS NULL OR end_s IS NULL THEN 'unreadable_timestamp'
    WHEN end_s <= start_s THEN 'end_not_after_start'
    WHEN text IS NULL OR text = '' OR (text > '~' AND NOT regexp_matches(text, '[^\p{C}\p{Z}\p{M}]'))
      THEN 'missing_caption'
    WHEN media_unsafe THEN 'unsafe_media_path'
    WHEN passes IS NOT TRUE THEN 'filtered_by_where'
    WHEN media_text IS NULL THEN 'media_missing'
  END AS reason
FROM parsed)
