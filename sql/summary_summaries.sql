-- Question: which summaries are accepted?
-- Grain: one row a summary. Reads: parts, the checkpointed results of the summarise stage.
CREATE OR REPLACE TEMP TABLE summary_summaries AS
SELECT key, parent_id, text, source_digest, backend, attempts, scores, reason AS fallback_reason,
  num_prompt_tokens, num_generated_tokens, seconds
FROM parts WHERE state = 'accepted'
