"""Long texts on their way to the summariser; whole stages of summaries are in tests/end_to_end."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest

from gex_pipeline import storage
from gex_pipeline.errors import BalanceError, GexError, Reason
from gex_pipeline.progress import Progress, shown_by
from gex_pipeline.ray_scorer import VideoScores
from gex_pipeline.run_lock import held
from gex_pipeline.run_state import open_run
from gex_pipeline.shard_format import make_key
from gex_pipeline.stages import summaries
from gex_pipeline.stages.summaries import (
    _PART_SCHEMA,
    _publish_pace,
    _publish_tables,
    _row,
    _score_videos,
    _Texts,
    _write_part,
    failing_gates,
)
from gex_pipeline.summarize import compress
from gex_pipeline.summarize.compress import Compression, summarise
from gex_pipeline.summarize.pending import done
from gex_pipeline.summarize.request import SummaryAnswer, request_digest
from gex_pipeline.tables import Database
from tests.making_runs import LVLT, clip_row, recipe_of, write_jsonl
from tests.summarize import stories

NUM, DONE = 5000, 40


@pytest.fixture
def texts():
    """5000 long texts of two captions, 40 of them with a result."""
    with Database(threads=1) as database:
        database.execute(
            "CREATE TEMP TABLE samples AS SELECT md5(i::VARCHAR) AS key, 'v' || i AS source_id, "
            "'one. two ' || i AS text, 'digest ' || i AS text_digest, [{'text': 'one.'}, {'text': 'two ' || i}] "
            "AS segments, 'LVLT.tar' AS media_uri, i AS media_offset_bytes, 7 AS media_size_bytes, "
            f"'mp4' AS media_extension FROM range({NUM}) AS r(i)"
        )
        database.execute("CREATE TEMP TABLE settled (id VARCHAR)")
        database.execute("CREATE TEMP TABLE barred (id VARCHAR)")
        database.run("summarise_texts", granularity="LVST")
        database.execute(f"CREATE TEMP TABLE parts AS SELECT key FROM long_texts WHERE clip_rank <= {DONE}")
        yield _Texts(database)


def test_texts_without_a_result_are_asked_for_in_the_order_of_their_keys(texts):
    asked = list(texts.requests())
    assert texts.num_texts == len(asked) == NUM - DONE
    assert [request.key for request in asked] == sorted({request.key for request in asked})
    rows = [texts.take(request.key) for request in asked]
    assert all(request.key == make_key("LVST", [row["parent_id"]]) for request, row in zip(asked, rows, strict=True))
    assert sorted(row["clip_rank"] for row in rows) == list(range(DONE + 1, NUM + 1))
    number = asked[0].text.removeprefix("one. two ")
    assert (asked[0].captions, asked[0].source_digest) == (("one.", f"two {number}"), f"digest {number}")
    assert (rows[0]["source_id"], rows[0]["media_offset_bytes"]) == (f"v{number}", int(number))


def test_texts_whose_results_are_there_are_not_in_memory(texts, monkeypatch):
    monkeypatch.setattr(summaries, "_TEXTS_READ", 256)

    def most_bytes(*, taken):
        tracemalloc.start()
        for request in texts.requests():
            if taken:
                texts.take(request.key)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    assert most_bytes(taken=True) < most_bytes(taken=False) / 4


class Wordless:
    """A model that says too little for a summary, but for the texts it knows."""

    name, max_attempts = "http", 1

    def __init__(self, told):
        self._told = told

    def answer(self, requests, settings):
        for asked in requests:
            text = self._told.get(asked.key, "no")
            yield SummaryAnswer(request_digest(asked, settings), asked.key, asked.source_digest, text, finish="stop")


class Cosines:
    """In place of the workers that score videos: these cosines for every one, or none for what cannot be decoded."""

    def __init__(self, long, short, refusal=""):
        self._row = {} if refusal else {"clip_video_long_text": long, "clip_video_short_text": short}
        self._refusal = refusal

    def score_videos(self, videos):
        return done([VideoScores(dict(self._row), self._refusal) for _ in videos])


VIDEO_GATE = {"clip_video_short_text": {"min": 0.25}}
TOLD = {
    "a": "A man in a blue jacket rides a motorcycle down a mountain road.",
    "c": "A man rides a motorcycle on a winding mountain road.",
}


def scored(folder, told, pool, video_gate=VIDEO_GATE):
    """Rows of three texts whose summaries are under the text gate when they are the fallback's; `clip_videos` is 2."""
    write_jsonl(folder / "clips.jsonl", [clip_row()])
    server = {"backend": "http", "model": "m", "url": "http://h/v1", "fallback": "extractive", "max_attempts": 1}
    gates = {"sentence_cosine": {"min": 0.5}, **video_gate}
    short = {"operation": "compress_text", "from": "LVLT", "summarizer": server, "gates": gates}
    nodes = {"SVST": {}, "LVLT": LVLT, "LVST": short}
    run = open_run(recipe_of(folder, granularity=nodes, scores={"clip_model": "org/clip", "clip_videos": 2}))
    settings = run.recipe.granularity["LVST"]

    def score(asked, candidates):
        return done([{"sentence_cosine": 0.9 if one.key in told else 0.4} for one in asked])

    job = Compression(
        settings=settings.summarizer,
        backend=Wordless(told),
        score=score,
        gate=lambda scores: failing_gates(settings.gates, scores),
    )
    results = sorted(
        summarise([replace(stories.request(), key=key) for key in "abc"], job), key=lambda result: result.key
    )
    place = {"media_uri": "LVLT/0.tar", "media_offset_bytes": 0, "media_size_bytes": 1, "media_extension": "mp4"}
    parents = [{"parent_id": str(i), "source_id": "s", "clip_rank": i, "text": "long", **place} for i in (1, 2, 3)]
    rows = [_row(result, parent) for result, parent in zip(results, parents, strict=True)]
    return _score_videos(run, run.recipe.graph.nodes["LVST"], rows, pool).result()


@pytest.mark.parametrize(("video_gate", "third"), [({}, None), (VIDEO_GATE, 0.2)])
def test_a_fallback_is_scored_by_its_video_and_not_gated_away(tmp_path, video_gate, third):
    """Those whose videos were looked at were rejected, by the text gate that a fallback does not have to pass."""
    rows = scored(tmp_path, {}, Cosines(0.2, 0.2), video_gate)
    assert [(row["state"], row["backend"], row["reason"]) for row in rows] == [
        ("accepted", "extractive", str(Reason.summary_too_short))
    ] * 3
    assert all(row["text"] and row["detail"].startswith("instead of summary_too_short") for row in rows)
    assert [row["scores"].get("clip_video_short_text") for row in rows] == [0.2, 0.2, third]
    assert {row["scores"]["sentence_cosine"] for row in rows} == {0.4}


def test_what_the_model_wrote_has_to_pass_the_gates_of_its_video(tmp_path):
    """The third, behind `clip_videos`, passed without a look at its video."""
    rows = scored(tmp_path, TOLD, Cosines(0.3, 0.2))
    assert [(row["state"], row["reason"]) for row in rows] == [
        ("rejected", str(Reason.gate_failed)),
        ("accepted", str(Reason.summary_too_short)),
        ("rejected", str(Reason.gate_failed)),
    ]
    for row, key in ((rows[0], "a"), (rows[2], "c")):
        assert row["detail"] == f"clip_video_short_text 0.2000 is under 0.25 by 0.0500: {TOLD[key].rstrip('.')}"
    assert [row["state"] for row in scored(tmp_path, TOLD, Cosines(0.3, 0.3))] == ["accepted"] * 3


def test_without_a_gate_on_videos_only_the_first_are_looked_at(tmp_path):
    rows = scored(tmp_path, TOLD, Cosines(0.3, 0.2), video_gate={})
    assert [row["state"] for row in rows] == ["accepted"] * 3
    assert [row["scores"].get("clip_video_short_text") for row in rows] == [0.2, 0.2, None]


def test_a_summary_whose_video_cannot_be_looked_at_does_not_pass_its_gate(tmp_path):
    """What could not be decoded ended the run, and every one after it."""
    unread = Cosines(0.3, 0.3, "undecodable: a picture cannot be decoded: OSError")
    rows = scored(tmp_path, TOLD, unread)
    assert [(row["state"], row["reason"]) for row in rows] == [
        ("rejected", str(Reason.gate_failed)),
        ("accepted", str(Reason.summary_too_short)),
        ("rejected", str(Reason.gate_failed)),
    ]
    why = "clip_video_short_text cannot be taken (undecodable: a picture cannot be decoded: OSError)"
    assert (rows[0]["text"], rows[0]["detail"]) == (None, f"{why}: {TOLD['a'].rstrip('.')}")
    ungated = scored(tmp_path, TOLD, unread, video_gate={})
    assert [(row["state"], set(row["scores"])) for row in ungated] == [("accepted", {"sentence_cosine"})] * 3


@pytest.mark.parametrize(("waiting_s", "num_words"), [(9.0, 1), (11.0, 2)])
def test_a_run_that_long_waited_for_scores_says_so(tmp_path, waiting_s, num_words):
    write_jsonl(tmp_path / "clips.jsonl", [clip_row()])
    run = open_run(recipe_of(tmp_path, granularity={"SVST": {}, "LVLT": LVLT}))
    said = []
    with shown_by(type("Heard", (Progress,), {"note": lambda _, text: said.append(text)})()):
        counted = compress.Progress(num_answers=10, num_prompt_tokens=900, answering_s=100.0, waiting_s=waiting_s)
        _publish_pace(run, run.recipe.graph.nodes["LVLT"], counted)
    assert said[0] == "LVLT: 10 answers, 9 tokens/s for 100.0 s after 0.0 s of starting"
    more = "LVLT: 11 s of waiting for scores, in which nothing was answered; more [ray] scorers make that less"
    assert said[1:] == [more][: num_words - 1]


@pytest.mark.parametrize("results", [["a", "b"], ["a"], ["a", "a"], ["a", "b", "b"], ["a", "c"], ["a", "b", "c"]])
def test_results_that_are_not_one_for_every_text_are_never_made_tables(tmp_path, results):
    write_jsonl(tmp_path / "clips.jsonl", [clip_row()])
    short = {"operation": "compress_text", "from": "LVLT", "summarizer": {"backend": "extractive"}}
    run = open_run(recipe_of(tmp_path, granularity={"SVST": {}, "LVLT": LVLT, "LVST": short}))
    node = run.recipe.graph.nodes["LVST"]
    facts = dict.fromkeys(_PART_SCHEMA.names) | {"state": "accepted", "scores": {}, "parent": {}}
    _write_part(run, node, 0, [facts | {"key": key, "parent_id": f"of {key}"} for key in results])
    with Database(threads=1) as database:
        database.execute("CREATE TEMP TABLE long_texts AS SELECT unnest(['a', 'b']) AS key")
        if results == ["a", "b"]:
            _publish_tables(database, run, node)
            written = sorted(
                (tmp_path / "output" / "tables").glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns
            )
            assert written[-1].name == "losses-LVST-000000.parquet", (
                "with it there, the next run takes all three for whole"
            )
        else:
            with pytest.raises(BalanceError, match=r"LVST: 2 texts were to be summarised and \d results"):
                _publish_tables(database, run, node)
    published = [path.name for path in (tmp_path / "output" / "tables").glob("*.parquet")]
    assert len(published) == (3 if results == ["a", "b"] else 0)


def test_a_run_that_lost_its_hold_writes_no_results_among_those_of_the_run_that_has_it(tmp_path):
    write_jsonl(tmp_path / "clips.jsonl", [clip_row()])
    short = {"operation": "compress_text", "from": "LVLT", "summarizer": {"backend": "extractive"}}
    run = open_run(recipe_of(tmp_path, granularity={"SVST": {}, "LVLT": LVLT, "LVST": short}))
    with held(run.layout, "slept") as lost:
        storage.remove(run.layout.run_lock)  # the machine slept, and was taken for dead
        with held(run.layout, "other"), pytest.raises(GexError, match=r"was ended by .*It publishes nothing more"):
            _write_part(replace(run, lease=lost), run.recipe.graph.nodes["LVST"], 0, [])
    assert not list((tmp_path / "output" / "tables").glob("**/*.parquet"))
