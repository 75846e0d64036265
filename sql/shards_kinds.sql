-- Question: which codecs, sizes, rates and ways of making are there?
-- Grain: one row a granularity and kind of media. Reads: samples.
SELECT
  granularity, codec, media_extension, width_px, height_px, round(fps, 2) AS fps, made_by, count(*)::BIGINT AS samples
FROM samples
GROUP BY ALL
ORDER BY granularity, samples DESC, codec, width_px, height_px, fps, made_by
