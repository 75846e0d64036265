"""Summaries from a server on loopback, asked once and never again."""

from __future__ import annotations

import json
import shutil

import pytest

from gex_pipeline.report.build import build_report
from tests.end_to_end.running import NO_MODELS, expand_to, rows_of, source_table, sums, write_recipe
from tests.summarize.chat_server import ChatServer, Reply, captions_of


@pytest.fixture(scope="module")
def chat_server():
    server = ChatServer()
    yield server
    server.close()


def summarised_by(server: ChatServer, corpus, folder, more: str = "max_attempts = 3"):
    """A recipe whose long texts this server sums up, with `more` said of the summarizer."""
    body = f"""
[granularity.SVST]
[granularity.LVLT]
operation = "integrate"
from = "SVST"
[granularity.LVST]
operation = "compress_text"
from = "LVLT"
gates = {{}}
summarizer = {{ backend = "http", model = "m", url = "{server.url}", api_key_env = "", max_words = 60, \
accept_max_words = 60, {more} }}
"""
    return write_recipe(folder, source_table(corpus) + NO_MODELS + body)


def test_answers_are_kept_when_everything_else_is_deleted(running, corpus, chat_server, tmp_path):
    recipe = summarised_by(chat_server, corpus, tmp_path)
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


def test_what_the_fallback_wrote_is_counted_in_the_report(running, corpus, tmp_path):
    """No gate looks at it, and the report's means hold its scores without a word about it."""
    refused: dict[str, list[str]] = {}

    def refuse_the_first(body):
        captions = captions_of(body)
        if refused.setdefault("captions", captions) == captions:
            return Reply("I'm sorry, but I cannot help with that.")
        return Reply(f"{captions[0]} and {' '.join(captions[-1].split()[:7])}")

    server = ChatServer(refuse_the_first)
    output = expand_to(summarised_by(server, corpus, tmp_path, 'max_attempts = 2, fallback = "extractive"'))
    server.close()
    build_report(str(output.folder))
    content = json.loads((output.folder / "report/report.json").read_bytes())
    assert content["fallbacks"] == {"LVST": {"num_summaries": 4, "num_fallback": 1}}
    assert "1 of 4 summaries by fallback, not gated" in (output.folder / "report/report.html").read_text("utf-8")
