"""What decides whether a candidate is assessed again, and how a corpus is read for its tasks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gex_pipeline import storage
from gex_pipeline.stages import assessment
from gex_pipeline.stages.assessment import _digest, assess
from gex_pipeline.stages.assessment_recipe import AssessmentRecipe, load_assessment, read_tasks, tasks_digest
from tests.making_runs import clip_row, recipe_of, run_ingest, write_jsonl
from tests.summarize.stories import STORIES

TASKS = [{"id": "1", "captions": ["a dog runs", "a cat sits"], "reference": "a dog and a cat"}]
ENGINE = '[candidate.v]\nsummarizer = { backend = "vllm", model = "./m", chat_template = "t.jinja" }\n'
CORPUS = '[tasks]\nreferences = "refs.jsonl"\nclips = "clips.jsonl"\n[candidate.e]\nsummarizer.backend = "extractive"\n'


def engine_candidate(folder: Path) -> AssessmentRecipe:
    """An assessment of one model that lies beside its file, as its template does."""
    (folder / "m").mkdir(parents=True)
    (folder / "m/config.json").write_text("{}")
    (folder / "t.jinja").write_text("A {{ messages }}")
    write_jsonl(folder / "tasks.jsonl", TASKS)
    (folder / "a.toml").write_text(
        f'[tasks]\nfile = "tasks.jsonl"\n[scores]\nbertscore_model = "./m"\nclip_model = "none/here"\n{ENGINE}'
    )
    return load_assessment(folder / "a.toml")


def test_relative_models_and_templates_start_from_the_assessments_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = engine_candidate(tmp_path / "a")
    found = recipe.summarizer_of("v")
    assert (found.model, found.chat_template) == (str(tmp_path / "a/m"), str(tmp_path / "a/t.jinja"))
    assert recipe.placed_scores.bertscore_model == str(tmp_path / "a/m")
    assert (recipe.placed_scores.sentence_model, recipe.placed_scores.clip_model) == ("minilm", "none/here")


def test_a_changed_template_is_assessed_again_and_a_moved_folder_is_not(tmp_path):
    """The name of the template stood for it, and a result of the former prompt was shown for the new one."""
    recipe = engine_candidate(tmp_path / "a")
    about = tasks_digest(read_tasks(recipe)[0])
    before = _digest(recipe, "v", about)
    assert _digest(engine_candidate(tmp_path / "b"), "v", about) == before
    (tmp_path / "a/t.jinja").write_text("B {{ messages }} quite another prompt")
    assert _digest(recipe, "v", about) != before


def test_a_template_that_is_not_there_costs_its_candidate(tmp_path):
    pytest.importorskip("vllm")
    recipe = engine_candidate(tmp_path)
    (tmp_path / "t.jinja").unlink()
    found = assess(recipe, read_tasks(recipe)[0], str(tmp_path / "out"))
    assert list(found.content["failed"]) == ["v"]
    assert found.content["failed"]["v"].startswith("chat_template 't.jinja' is neither a file, nor Jinja text")
    assert not storage.exists(f"{tmp_path}/out/candidates/v.json")


def test_beside_a_candidate_in_an_engine_everything_is_scored_on_the_cpu(tmp_path, monkeypatch):
    """Models of the first candidate's scores stayed on the GPU, and the next one's engine had too little memory."""
    engine_candidate(tmp_path)
    (tmp_path / "t.jinja").unlink()  # the engine itself is not what this is about
    extractive = '[candidate.e]\nsummarizer.backend = "extractive"\ngates = { sentence_cosine = { min = 0.01 } }\n'
    write_jsonl(tmp_path / "tasks.jsonl", [{"id": "1", "captions": list(STORIES[0]), "reference": "a woman cooks"}])
    (tmp_path / "a.toml").write_text(f'[tasks]\nfile = "tasks.jsonl"\n{extractive}{ENGINE}')
    recipe = load_assessment(tmp_path / "a.toml")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assessment._scorers.cache_clear()
    found = assess(recipe, read_tasks(recipe)[0], str(tmp_path / "out"))
    assert list(found.content["failed"]) == ["v"]
    assert found.content["candidates"][0]["scores"]["bertscore_f1"]["mean"] > 0
    assert assessment._score_device(recipe) == "cpu"
    alone = recipe.model_copy(update={"candidate": {"e": recipe.candidate["e"]}})
    assert assessment._score_device(alone) is None  # a GPU where there is one
    assessment._scorers.cache_clear()


def captions_of(folder: Path, rows: list[dict[str, Any]], num: int | None = None) -> list[tuple[str, ...]]:
    """The captions of each task of a corpus; of source v as ingest has them too."""
    write_jsonl(folder / "clips.jsonl", rows)
    row = {"YoutubeID": "v", "Reference": "things"}
    write_jsonl(folder / "refs.jsonl", [row | ({"clips": num} if num else {})])
    (folder / "b.toml").write_text(CORPUS)
    found = [task.request.captions for task in read_tasks(load_assessment(folder / "b.toml"))[0]]
    _, clips, _ = run_ingest(recipe_of(folder))
    assert found == [tuple(clip["text"] for clip in clips if clip["source_id"] == "v")]
    return found


def at(start_s: int, caption: Any, source: Any = "v", **more: Any) -> dict[str, Any]:
    return clip_row(source, f"00:00:{start_s:02d}.000", f"00:00:{start_s + 1:02d}.000", caption, **more)


@pytest.mark.parametrize(
    "sentences",
    [
        ["A dog runs!", "It is 5.5 m long\u2026", "A cat sits"],
        ["एक कुत्ता दौड़ता है।", "एक बिल्ली बैठी है।"],
        ["ایک کتا دوڑتا ہے\u06d4", "ایک بلی بیٹھی ہے\u06d4"],
        ["\u300cこんにちは。\u300d", "犬が走る。。", "猫が座る。"],
    ],
)
def test_a_text_without_captions_is_split_at_its_sentences_in_any_script(tmp_path, sentences):
    between = "" if sentences[-1].endswith("\u3002") else " "
    write_jsonl(tmp_path / "tasks.jsonl", [{"id": "1", "text": between.join(sentences) + " ", "reference": "x"}])
    toml = '[tasks]\nfile = "tasks.jsonl"\n[candidate.e]\nsummarizer.backend = "extractive"\n'
    (tmp_path / "b.toml").write_text(toml)
    ((task,), _) = read_tasks(load_assessment(tmp_path / "b.toml"))
    assert task.request.captions == tuple(sentences)


def test_captions_of_a_corpus_are_cleaned_as_a_run_cleans_them(tmp_path):
    rows = [at(2, "a cat\u200b sits"), at(1, "a dog\n runs  fast"), at(3, "\u200b\u200b"), at(4, " \u00a0")]
    assert captions_of(tmp_path, rows, num=2) == [("a dog runs fast", "a cat sits")]


def test_of_two_rows_about_one_clip_the_first_by_caption_counts(tmp_path):
    rows = [at(1, "a dog runs"), at(2, "a cat sits"), at(1, "a zebra runs"), at(1, "a bee flies")]
    assert captions_of(tmp_path, rows, num=2) == [("a bee flies", "a cat sits")]
    assert captions_of(tmp_path, rows[::-1], num=2) == [("a bee flies", "a cat sits")]


def test_times_of_a_corpus_mean_what_they_mean_to_a_run(tmp_path):
    rows = [
        clip_row("v", "00:00:03,000", "00:00:04,500", "third"),
        clip_row("v", 1, 2.5, "first"),
        clip_row("v", "0:02", "0:03", "second"),
        clip_row("v", "00:00:99.000", "00:03:00", "no time"),
        clip_row("v", "1:2:3:4", "9999999", "no time either"),
        clip_row("v", "inf", "nan", "nor this"),
        clip_row("v", "5", "5", "of no length"),
    ]
    assert captions_of(tmp_path, rows, num=3) == [("first", "second", "third")]


def test_sources_are_joined_as_text(tmp_path):
    write_jsonl(tmp_path / "clips.jsonl", [at(1, "a dog runs", 5), at(2, "a cat sits", " 5 "), at(3, "a bird", None)])
    write_jsonl(tmp_path / "refs.jsonl", [{"YoutubeID": 5, "Reference": "r", "clips": 2}])
    (tmp_path / "b.toml").write_text(CORPUS)
    (task,) = read_tasks(load_assessment(tmp_path / "b.toml"))[0]
    assert (task.request.key, json.dumps(task.request.captions)) == ("5", '["a dog runs", "a cat sits"]')


def test_results_of_another_version_are_made_again(tmp_path, monkeypatch):
    """An extractive candidate of before a mended bug was called worse than the very same one added after it."""
    recipe = engine_candidate(tmp_path / "a")
    about = tasks_digest(read_tasks(recipe)[0])
    digests = [_digest(recipe, "v", about)]
    version = Path(shutil.copytree(Path(assessment.__file__).parent.parent, tmp_path / "version"))
    monkeypatch.setattr(assessment, "__file__", str(version / "stages/assessment.py"))
    for changed in (None, "summarize/extractive.py", "validate/sentence.py", "stages/summaries.py"):
        if changed:
            (version / changed).write_text((version / changed).read_text() + "\nCHANGED = 1\n")
        assessment._code.cache_clear()
        digests.append(_digest(recipe, "v", about))
    assessment._code.cache_clear()
    assert digests[0] == digests[1]
    assert len(set(digests[1:])) == 4
