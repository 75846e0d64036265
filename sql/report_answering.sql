-- Question: how fast did a model answer, over all snapshots?
-- Grain: one row. Reads: answering (a row a snapshot). Out: answers, tokens a second, seconds of answering and of starting.
SELECT
  sum(num_answers)::BIGINT AS num_answers,
  sum(num_prompt_tokens)::BIGINT AS num_prompt_tokens,
  sum(num_generated_tokens)::BIGINT AS num_generated_tokens,
  sum(startup_s) AS startup_s,
  sum(answering_s) AS answering_s,
  sum(num_prompt_tokens + num_generated_tokens) / sum(answering_s) AS tokens_per_s
FROM answering
