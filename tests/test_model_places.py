"""Models and templates named by relative paths lie in the folder of the file that names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gex_pipeline.errors import GexError
from gex_pipeline.model_places import placed_scores, placed_summarizer, scores_of, summarizer_of
from gex_pipeline.recipe import Recipe, load_recipe
from gex_pipeline.summarize.chat_template import chat_template_text
from gex_pipeline.summarize.request import request_digest
from gex_pipeline.summarize.settings import SummarizerSettings
from gex_pipeline.summarize.vllm_backend import VllmBackend
from gex_pipeline.validate.settings import ScorerSettings
from gex_pipeline.validate.weights import find_weights
from tests.summarize.stories import request

RECIPE = """
name = "r"
output = "out"
[source]
clips = "clips.jsonl"
media = { kind = "files", uri = "clips/{YoutubeID}.mp4" }
[scores]
sentence_model = "models/encoder"
clip_model = "./models/clip"
[granularity.SVST]
[granularity.LVLT]
operation = "integrate"
from = "SVST"
[granularity.LVST]
operation = "compress_text"
from = "LVLT"
summarizer = { backend = "vllm", model = "models/writer", chat_template = "prompt.jinja" }
"""


def in_folder(folder: Path) -> Recipe:
    """A recipe with its models and its template beside it."""
    for name in ("encoder", "clip", "writer"):
        (folder / "models" / name).mkdir(parents=True)
        (folder / "models" / name / "config.json").write_text("{}")
    (folder / "prompt.jinja").write_text("{{ messages }}")
    (folder / "recipe.toml").write_text(RECIPE)
    return load_recipe(folder / "recipe.toml")


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return in_folder(tmp_path / "a")


def test_relative_models_and_templates_start_from_the_recipes_folder(recipe, tmp_path):
    """They started from wherever the command was called."""
    settings = summarizer_of(recipe, "LVST")
    assert settings.model == str(tmp_path / "a/models/writer")
    assert chat_template_text(settings) == "{{ messages }}"
    scores = scores_of(recipe)
    assert find_weights(scores.sentence_model).source == str(tmp_path / "a/models/encoder")
    assert find_weights(scores.clip_model).source == str(tmp_path / "a/models/clip")
    assert scores.bertscore_model == "minilm"


def test_an_engine_finds_a_model_in_the_recipes_folder(recipe):
    pytest.importorskip("vllm")
    settings = summarizer_of(recipe, "LVST")
    VllmBackend(settings).check_ready(settings)
    (Path(settings.model or "") / "config.json").unlink()
    with pytest.raises(GexError, match=r"a/models/writer' holds no config.json"):
        VllmBackend(settings).check_ready(settings)


def test_the_same_files_in_another_folder_are_the_same_recipe_and_ask_the_same(recipe, tmp_path):
    moved = in_folder(tmp_path / "b")
    assert moved.hash == recipe.hash
    assert moved.resolved() == recipe.resolved()
    assert recipe.resolved()["granularity"]["LVST"]["summarizer"]["model"] == "models/writer"
    asked = {request_digest(request(), summarizer_of(one, "LVST")) for one in (recipe, moved)}
    assert len(asked) == 1
    (tmp_path / "b/prompt.jinja").write_text("another {{ messages }}")
    assert request_digest(request(), summarizer_of(moved, "LVST")) not in asked


def test_what_is_not_in_the_folder_stays_as_it_was_written(tmp_path):
    (tmp_path / "org/name").mkdir(parents=True)
    (tmp_path / "minilm").mkdir()
    (tmp_path / "vicuna_v1.5").write_text("{{ x }}")
    for change in ({"model": "lmsys/vicuna-13b-v1.5"}, {"model": "m", "chat_template": "vicuna_v1.5"}):
        settings = SummarizerSettings(backend="vllm", **change)
        assert placed_summarizer(settings, str(tmp_path)) == settings
    jinja = SummarizerSettings(backend="vllm", model="m", chat_template="{% for m in messages %}" + "x" * 300)
    assert placed_summarizer(jinja, str(tmp_path)) == jinja
    served = SummarizerSettings(backend="http", model="org/name", url="http://h/v1")
    assert placed_summarizer(served, str(tmp_path)) == served
    assert placed_scores(ScorerSettings(), str(tmp_path)) == ScorerSettings()
