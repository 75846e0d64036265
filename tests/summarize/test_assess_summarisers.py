"""`gex assess-summarisers`: tasks with references through the real summarising path, servers and scores among it."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rouge_score import rouge_scorer

from gex_pipeline.cli.main import main
from gex_pipeline.errors import GexError, RecipeError
from gex_pipeline.operations.integrate import join_texts
from gex_pipeline.shard_format import text_digest
from gex_pipeline.stages.assessment import recommend
from gex_pipeline.stages.assessment_recipe import load_assessment, read_tasks
from tests.report.page import Page
from tests.summarize.chat_server import Reply
from tests.summarize.stories import STORIES

REFERENCES = {
    "breakfast": "a woman cooks pasta with vegetables and tomato sauce",
    "fishing": "a man catches a large fish on a lake and releases it",
    "pets": "a small dog and a cat play and eat together",
    "ride": "a man rides a motorcycle on a winding mountain road to a cafe",
}
TASKS = dict(zip(("breakfast", "ride", "fishing", "pets"), STORIES, strict=True))


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_file(folder: Path, candidates: str, tasks: str = 'file = "tasks.jsonl"') -> Path:
    """An assessment over the four stories; ROUGE alone is scored against references."""
    write_lines(
        folder / "tasks.jsonl",
        [{"id": name, "captions": list(TASKS[name]), "reference": text} for name, text in REFERENCES.items()],
    )
    path = folder / "assessment.toml"
    path.write_text(f'name = "a test"\n[scores]\nbertscore_model = false\n[tasks]\n{tasks}\n{candidates}', "utf-8")
    return path


def http(name: str, url: str, more: str = "") -> str:
    return (
        f'[candidate.{name}]\ngates = {{}}\nsummarizer = {{ backend = "http", model = "m", url = "{url}", '
        f'api_key_env = "GEX_TEST_KEY", max_attempts = 2{more} }}\n'
    )


EXTRACTIVE = '[candidate.extractive]\ngates = {}\nsummarizer = { backend = "extractive" }\n'


def refuse_ride(body: dict[str, Any]) -> Reply:
    """The reference of each story, but no answer about the motorcycle."""
    asked = body["messages"][-1]["content"]
    if TASKS["ride"][0] in asked:
        return Reply("I'm sorry, but I cannot help with that.")
    return Reply(next(REFERENCES[name] for name, captions in TASKS.items() if captions[0] in asked))


def run(path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, Any], str]:
    code = main(["assess-summarisers", str(path), "-o", str(path.parent / "out"), "--json", *more])
    shown = capsys.readouterr()
    return code, json.loads(shown.out), shown.err


def test_every_candidate_is_scored_against_references_and_what_it_failed_at_is_counted(serve, tmp_path, capsys):
    server = serve(refuse_ride)
    path = write_file(tmp_path, http("served", server.url) + EXTRACTIVE)
    code, content, _ = run(path, capsys)
    served, extractive = content["candidates"]
    assert code == 0
    assert (served["num_tasks"], served["num_summaries"], served["rejected"]) == (4, 3, {"summary_refusal": 1})
    assert len(server.bodies) == 5  # the refusal was asked for twice
    assert served["num_attempts"] == 5
    # What was told is the references themselves; over all tasks the missing one counts as nothing.
    assert served["scores"]["rougeL"]["mean"] == 1
    assert served["scores"]["rougeL"]["mean_over_all"] == 0.75
    # 100 tokens a prompt and 12 an answer, as the server says; the extractive summariser counts none.
    assert (served["prompt_tokens_a_task"], served["generated_tokens_a_task"]) == (125, 15)
    assert served["seconds_a_task"] > 0
    # BERTScore is off, so the rule does not speak of it.
    assert content["recommendation"]["rule"].endswith("lie under 0, in ROUGE-L. A task without a summary counts as 0.")
    compared = content["recommendation"]["compared"]["extractive"]["rougeL"]
    assert compared["best"] == "served"
    low, high = compared["interval"]
    text = Page((tmp_path / "out/assessment.html").read_text(encoding="utf-8")).text.replace("\u2212", "-")
    assert f"{compared['difference']:.3f} to the best ({low:.3f} to {high:.3f})" in text
    assert "0.000 to the best" not in text  # beside the best itself stand these words alone
    assert compared["difference"] == pytest.approx(extractive["scores"]["rougeL"]["mean_over_all"] - 0.75, abs=2e-6)
    assert extractive["prompt_tokens_a_task"] is None
    assert extractive["num_summaries"] == 4

    rows = pq.ParquetFile(tmp_path / "out/assessment.parquet").read().to_pylist()
    assert [(row["candidate"], row["id"]) for row in rows] == [
        (name, task) for name in ("served", "extractive") for task in sorted(REFERENCES)
    ]
    told = [row["seconds"] for row in rows[:4] if row["text"] is not None]
    assert served["latency_s"] == statistics.median(told) > 0
    assert extractive["latency_s"] == pytest.approx(statistics.median(row["seconds"] for row in rows[4:]), abs=1e-6)
    library = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for row in rows[4:]:
        expected = library.score(REFERENCES[row["id"]], row["text"])
        assert row["rouge2"] == pytest.approx(expected["rouge2"].fmeasure, abs=1e-6)
        assert row["rougeL"] == pytest.approx(expected["rougeL"].fmeasure, abs=1e-6)
    mean = sum(row["rouge1"] for row in rows[4:]) / 4
    assert extractive["scores"]["rouge1"]["mean"] == pytest.approx(mean, abs=1e-5)
    low, high = extractive["scores"]["rouge1"]["interval"]
    assert low < mean < high


def test_a_finished_candidate_is_not_asked_again_and_a_changed_one_is(serve, tmp_path, capsys):
    server = serve()
    path = write_file(tmp_path, http("a", server.url) + http("b", server.url))
    _, first, _ = run(path, capsys)
    assert len(server.bodies) == 8
    _, again, _ = run(path, capsys)
    assert len(server.bodies) == 8
    assert again == first
    path = write_file(tmp_path, http("a", server.url) + http("b", server.url, ", max_words = 15"))
    run(path, capsys)
    assert len(server.bodies) == 12
    run(path, capsys, "--tasks", "3")  # other tasks: nothing that is there fits
    assert len(server.bodies) == 18


def test_a_candidate_that_cannot_run_costs_itself_and_is_asked_again(serve, tmp_path, capsys):
    gone = serve()
    gone.close()
    path = write_file(tmp_path, http("gone", gone.url, ", max_retries = 0") + EXTRACTIVE)
    code, content, err = run(path, capsys)
    assert code == 75
    assert "gone did not run: " in err
    assert [item["name"] for item in content["candidates"]] == ["extractive"]
    assert list(content["failed"]) == ["gone"]
    assert content["recommendation"]["candidate"] == "extractive"
    page = Page((tmp_path / "out/assessment.html").read_text(encoding="utf-8"))
    assert "did not run" in page.text

    write_file(tmp_path, http("gone", serve().url) + EXTRACTIVE)
    code, content, _ = run(path, capsys)
    assert code == 0
    assert [item["name"] for item in content["candidates"]] == ["gone", "extractive"]


def test_gates_are_those_of_the_summarise_stage(tmp_path, capsys):
    """By default a summary has to be near its long text in meaning; here it would have to be the text itself."""
    candidate = EXTRACTIVE.replace("gates = {}", "gates = { rouge1 = { min = 0.99 } }")
    code, content, _ = run(write_file(tmp_path, candidate), capsys)
    assert code == 0
    assert content["candidates"][0]["rejected"] == {"gate_failed": 4}
    assert content["recommendation"]["candidate"] is None
    assert load_assessment(write_file(tmp_path, EXTRACTIVE.replace("gates = {}\n", ""))).candidate[
        "extractive"
    ].gates.keys() == {"sentence_cosine"}


def test_the_page_shows_the_table_beside_the_papers_and_runs_nothing(serve, tmp_path, capsys):
    server = serve(lambda _: Reply("a man <script>alert(1)</script> rides on a road"))
    path = write_file(tmp_path, EXTRACTIVE + http("hostile", server.url))
    run(path, capsys)
    html = (tmp_path / "out/assessment.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.scripts == []
    for words in ("extractive recommended", "Vicuna-13b-v1.5 paper, table 7", "summary prompt echo", "The rule:"):
        assert words in page.text
    assert "with up to hundreds of them in flight" in page.text
    assert "Seconds a task Latency, s Tokens a task" in page.text
    assert [attributes["content"][:18] for attributes in page.of("meta") if "http-equiv" in attributes] == [
        "default-src 'none'"
    ]
    drawn = (tmp_path / "out/quality-rougeL.svg").read_text(encoding="utf-8")
    assert drawn.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert Page(drawn).of("circle")


def results(**candidates: tuple[float, list[float | None]]) -> dict[str, dict[str, Any]]:
    """Seconds a task and a score a task, by candidate."""
    return {
        name: {
            "figures": {"seconds_a_task": seconds, "num_summaries": 1, "scores": {"rougeL": {}}},
            "rows": [{"rougeL": value} for value in values],
        }
        for name, (seconds, values) in candidates.items()
    }


def test_the_fastest_that_is_as_good_as_the_best_is_recommended():
    good = [0.4 + 0.01 * (n % 7) for n in range(100)]
    nearly = [value + (0.02 if n % 2 else -0.021) for n, value in enumerate(good)]
    worse = [value - 0.1 for value in good]
    found = recommend(results(slow=(7.0, good), fast=(1.0, nearly), bad=(0.1, worse)), seed=0)
    assert found["candidate"] == "fast"
    assert found["compared"]["bad"]["rougeL"]["as_good"] is False
    assert found["compared"]["bad"]["rougeL"]["interval"] == pytest.approx([-0.1, -0.1], abs=1e-6)
    assert found["compared"]["bad"]["rougeL"]["difference"] == pytest.approx(-0.1, abs=1e-6)
    assert found["compared"]["slow"]["rougeL"] == {"best": "slow", "difference": 0, "interval": [0, 0], "as_good": True}
    assert "few" not in found["why"]


def test_under_a_hundred_tasks_it_is_said_what_may_go_unseen():
    found = recommend(results(one=(1.0, [0.4] * 99), two=(2.0, [0.4] * 99)), seed=0)
    words = "99 tasks are few to tell candidates apart: a difference of 0.05 in ROUGE-L may go unseen"
    assert found["why"] == f"one, with 1 s a task, is the fastest of one, two; {words}"


def test_the_rule_names_the_scores_that_were_compared():
    both = results(a=(1.0, [0.4] * 100))
    both["a"]["figures"]["scores"]["bertscore_f1"] = {}
    for row in both["a"]["rows"]:
        row["bertscore_f1"] = 0.9
    assert "lie under 0, in ROUGE-L and in BERTScore-F1. A task" in recommend(both, seed=0)["rule"]
    nobody = {"a": {"figures": {"num_summaries": 0, "scores": {}}, "rows": [{"rougeL": None}]}}
    assert "does not lie under 0. A task" in recommend(nobody, seed=0)["rule"]


def test_a_candidate_that_answers_the_easy_half_is_not_as_good():
    good = [0.4] * 40
    half = [0.45 if n % 2 else None for n in range(40)]
    assert recommend(results(all=(7.0, good), half=(1.0, half)), seed=0)["candidate"] == "all"


def test_tasks_of_a_corpus_are_its_captions_joined_as_integrate_joins_them(tmp_path):
    clips = [
        {"YoutubeID": "v", "Start_timestamp": "00:01:10.000", "End_timestamp": "00:01:12.000", "Caption": "third!"},
        {"YoutubeID": "v", "Start_timestamp": "00:00:09.500", "End_timestamp": "00:00:12.000", "Caption": "first one"},
        {"YoutubeID": "v", "Start_timestamp": "59.5", "End_timestamp": "61", "Caption": " second one "},
        {"YoutubeID": "v", "Start_timestamp": "oops", "End_timestamp": "70", "Caption": "no clip"},
        {"YoutubeID": "w", "Start_timestamp": "1", "End_timestamp": "2", "Caption": "alone"},
    ]
    write_lines(tmp_path / "clips.jsonl", clips)
    references = [{"YoutubeID": "v", "Reference": "three things", "clips": 3}]
    write_lines(tmp_path / "refs.jsonl", [*references, {"YoutubeID": "w", "Reference": "two things", "clips": 2}])
    path = write_file(tmp_path, EXTRACTIVE, 'references = "refs.jsonl"\nclips = "clips.jsonl"')
    tasks, notes = read_tasks(load_assessment(path))
    (task,) = tasks
    assert task.request.text == join_texts(["first one", "second one", "third!"]) == "first one. second one. third!"
    assert task.request.captions == ("first one", "second one", "third!")
    assert task.request.source_digest == text_digest(task.request.text)
    assert task.reference == "three things"
    assert notes == ["w is left out: its reference is about 2 clips, found 1"]


def test_so_many_tasks_are_drawn_by_the_seed_whatever_their_order(tmp_path):
    path = write_file(tmp_path, EXTRACTIVE)
    keys = {task.request.key for task in read_tasks(load_assessment(path), 2)[0]}
    lines = (tmp_path / "tasks.jsonl").read_text().splitlines()
    (tmp_path / "tasks.jsonl").write_text("\n".join(reversed(lines)))
    assert {task.request.key for task in read_tasks(load_assessment(path), 2)[0]} == keys
    drawn = set()
    for seed in range(8):
        path.write_text(f"seed = {seed}\n" + write_file(tmp_path, EXTRACTIVE).read_text())
        drawn.add(frozenset(task.request.key for task in read_tasks(load_assessment(path), 2)[0]))
    assert len(drawn) > 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"captions": ["a"], "reference": "b"}, "tasks.jsonl line 1: found no id"),
        ({"id": "1", "captions": ["a"], "reference": " "}, "line 1: reference is ' ', expected a text"),
        ({"id": "1", "reference": "b"}, r"line 1: text \(or captions\) is None, expected a text"),
        ({"id": "1", "captions": [], "reference": "b"}, r"captions = \[\], expected a list"),
    ],
)
def test_a_line_that_is_no_task_is_named(tmp_path, row, message):
    path = write_file(tmp_path, EXTRACTIVE)
    write_lines(tmp_path / "tasks.jsonl", [row])
    with pytest.raises(GexError, match=message):
        read_tasks(load_assessment(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": "b \ud83d"}, "line 2: reference holds half of a character"),
        ({"captions": ["a", "\udc00 b"]}, "line 2: captions holds half of a character"),
        ({"text": "a \ud83d b"}, r"line 2: text holds half of a character .*'a \\ud83d b'"),
        ({"id": "1\ud83d"}, "line 2: id holds half of a character"),
    ],
)
def test_half_a_character_is_found_before_anybody_is_asked(serve, tmp_path, capsys, change, message):
    """It could not be written, which was found out when all answers had been paid for."""
    server = serve()
    path = write_file(tmp_path, http("served", server.url))
    row = {"id": "1", "captions": ["a man runs"], "reference": "a man runs"}
    write_lines(tmp_path / "tasks.jsonl", [row | {"id": "0"}, row | change])
    with pytest.raises(GexError, match=message):
        read_tasks(load_assessment(path))
    assert main(["assess-summarisers", str(path), "-o", str(tmp_path / "out")]) == 1
    assert "half of a character" in capsys.readouterr().err
    assert server.bodies == []


def test_half_a_character_in_a_corpus_is_named_with_its_line(tmp_path):
    clip = {"YoutubeID": "v", "Start_timestamp": "1", "End_timestamp": "2", "Caption": "half \ud83d"}
    write_lines(tmp_path / "clips.jsonl", [clip])
    write_lines(tmp_path / "refs.jsonl", [{"YoutubeID": "v", "Reference": "things"}])
    path = write_file(tmp_path, EXTRACTIVE, 'references = "refs.jsonl"\nclips = "clips.jsonl"')
    with pytest.raises(GexError, match=r"clips.jsonl line 1: Caption holds half"):
        read_tasks(load_assessment(path))


def test_lines_and_times_beyond_all_bounds_are_said_to_be_wrong(tmp_path):
    path = write_file(tmp_path, EXTRACTIVE)
    (tmp_path / "tasks.jsonl").write_text("[" * 100_000)
    with pytest.raises(GexError, match="line 1 is no JSON"):
        read_tasks(load_assessment(path))
    clip = {"YoutubeID": "v", "Start_timestamp": "1:" * 1000 + "1", "End_timestamp": "2", "Caption": "no clip"}
    write_lines(tmp_path / "clips.jsonl", [clip])
    write_lines(tmp_path / "refs.jsonl", [{"YoutubeID": "v", "Reference": "things"}])
    path = write_file(tmp_path, EXTRACTIVE, 'references = "refs.jsonl"\nclips = "clips.jsonl"')
    with pytest.raises(GexError, match="found 0"):
        read_tasks(load_assessment(path))


@pytest.mark.parametrize(
    ("scores", "gate"),
    [("", "rogue1"), ("", "clip_text_cosine"), ("rouge = false\n", "rouge1"), ("", "bertscore_f1")],
)
def test_a_gate_on_a_score_that_is_not_taken_is_refused(tmp_path, scores, gate):
    """It never closed, and all summaries passed."""
    candidate = EXTRACTIVE.replace("gates = {}", f"gates = {{ {gate} = {{ min = 0.99 }} }}")
    path = write_file(tmp_path, candidate)
    path.write_text(path.read_text().replace("[scores]\n", f"[scores]\n{scores}"))
    message = rf"candidate.extractive.gates: \[scores\] takes no '{gate}'; it takes: .*sentence_cosine"
    with pytest.raises(RecipeError, match=message):
        load_assessment(path)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_interval_takes_is_refused(tmp_path, seed):
    """numpy refused it when the candidate had run, and its answers were lost."""
    path = write_file(tmp_path, EXTRACTIVE)
    path.write_text(f"seed = {seed}\n" + path.read_text())
    with pytest.raises(RecipeError, match=rf"seed = {seed}: input should be"):
        load_assessment(path)


def test_an_id_that_comes_twice_is_named_and_a_long_text_alone_is_split_at_its_sentences(tmp_path):
    path = write_file(tmp_path, EXTRACTIVE)
    row = {"key": 7, "text": "A man runs. A dog barks!  They rest", "reference": "a man runs with a dog"}
    write_lines(tmp_path / "tasks.jsonl", [row])
    (task,) = read_tasks(load_assessment(path))[0]
    assert (task.request.key, task.request.captions) == ("7", ("A man runs.", "A dog barks!", "They rest"))
    assert task.request.text == row["text"]
    write_lines(tmp_path / "tasks.jsonl", [row, row])
    with pytest.raises(GexError, match="task '7' comes twice"):
        read_tasks(load_assessment(path))


@pytest.mark.parametrize(
    ("tasks", "candidates", "message"),
    [
        ('file = "t"\nreferences = "r"', EXTRACTIVE, "tasks: found file and references; name a file, or references"),
        ('file = "t"', "[candidate]", r"no \[candidate.NAME\] table"),
        ('file = "t"', '[candidate."a/b"]\nsummarizer = { backend = "extractive" }', "candidate.a/b: a name has"),
        ('file = "t"', '[candidate.a]\nsummarizer = { backend = "http" }', "needs `model`"),
        ('file = "t"', "[candidate.a]\nsumarizer = {}", "did you mean 'summarizer'"),
    ],
)
def test_a_wrong_file_is_refused_with_its_key(tmp_path, capsys, tasks, candidates, message):
    path = write_file(tmp_path, candidates, tasks)
    with pytest.raises(RecipeError, match=message):
        load_assessment(path)
    assert main(["assess-summarisers", str(path)]) == 2
    assert str(path) in capsys.readouterr().err
