"""Summaries from a server on loopback, asked once and never again."""

from __future__ import annotations

import shutil

import pytest

from tests.end_to_end.running import NO_MODELS, expand_to, rows_of, source_table, sums, write_recipe
from tests.summarize.chat_server import ChatServer, captions_of


@pytest.fixture(scope="module")
def chat_server():
    server = ChatServer()
    yield server
    server.close()


def test_answers_are_kept_when_everything_else_is_deleted(running, corpus, chat_server, tmp_path):
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
summarizer = {{ backend = "http", model = "m", url = "{chat_server.url}", api_key_env = "", max_words = 60, \
accept_max_words = 60 }}
"""
    )
    recipe = write_recipe(tmp_path, body)
    output = expand_to(recipe)
    assert len(chat_server.bodies) == 4
    asked = {tuple(captions_of(body)) for body in chat_server.bodies}
    assert asked == {tuple(segment["text"] for segment in sample["segments"]) for sample in output.samples("LVLT")}
    by_parent = {row["parents"][0]: row for row in output.samples("LVST")}
    for long in output.samples("LVLT"):
        captions = [segment["text"] for segment in long["segments"]]
        expected = f"{captions[0]} and {' '.join(captions[-1].split()[:7])}"
        assert by_parent[long["key"]]["text"] == expected
    summaries = rows_of(output.folder / "tables/summaries-LVST-000000.parquet")
    assert {(row["backend"], row["attempts"], row["num_generated_tokens"]) for row in summaries} == {("http", 1, 12)}

    before = sums(output.folder)
    for path in output.folder.iterdir():
        if path.name != "cache":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    again = expand_to(recipe)
    assert len(chat_server.bodies) == 4
    assert sums(again.folder) == before
