from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest
from pydantic import ValidationError

from gex_pipeline.ray_scorer import CLIP_VIDEO_NAMES
from gex_pipeline.validate.scorers import TextScorers
from gex_pipeline.validate.settings import (
    _NAMES,
    ScorerSettings,
    mixed_scores,
    names_taken_otherwise,
    never_taken_so,
    score_rules,
)

ALL_NAMES = (*TextScorers(ScorerSettings(clip_model="a")).names(), *CLIP_VIDEO_NAMES)


def test_the_defaults_need_no_model_hub():
    settings = ScorerSettings()
    assert (settings.rouge, settings.sentence_model, settings.bertscore_model) == (True, "minilm", "minilm")
    assert (settings.bertscore_layers, settings.clip_model) == (None, None)


def test_false_in_toml_switches_a_score_off_and_survives_a_round_trip():
    settings = ScorerSettings(**tomllib.loads("sentence_model = false\nbertscore_model = false"))
    assert settings.sentence_model is None
    assert ScorerSettings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    "values", [{"bert_model": "x"}, {"bertscore_layers": 0}, {"sentence_model": ""}, {"clip_model": True}]
)
def test_unknown_keys_and_senseless_values_are_refused(values):
    with pytest.raises(ValidationError):
        ScorerSettings(**values)


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        ScorerSettings().rouge = False


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ([None, {"rouge": False}, {"sentence_model": "minilm"}], None),
        ([{"clip_model": None}, {"clip_model": "org/clip"}, {"sentence_model": None}], None),  # taken by one or by none
        ([{}, {"bertscore_layers": 3}, {}], "BERTScore (minilm, then minilm 3)"),
        (
            [{"clip_model": "a", "clip_frames": 8}, {"clip_model": "b", "sentence_model": "org/s"}],
            "sentence cosine (minilm, then org/s) and CLIP (a 8, then b 8)",
        ),
    ],
)
def test_scores_that_snapshots_took_by_different_models_are_named(tables, told):
    said = mixed_scores(({} if table is None else {"scores": table}, score_rules()) for table in tables)
    start, end = "[scores] was changed between snapshots: figures of ", " mix models that do not compare."
    assert said == (f"{start}{told}{end}" if told else "")


def test_scores_that_versions_took_by_different_rules_are_named():
    """Of a longer text one version read the first 256 tokens, and means went over its cosines and the later ones."""
    before, now = ({}, {}), ({}, score_rules())
    told = "sentence cosine (minilm by rule 1, then minilm by rule 2)"
    end = " mix scores that do not compare."
    assert mixed_scores([before, now]) == f"How scores are taken was changed between snapshots: figures of {told}{end}"
    assert mixed_scores([before, ({"scores": {"sentence_model": None}}, score_rules())]) == ""
    other = ({}, score_rules() | {"rule of ROUGE": "2", "rule of BERTScore": "2"})
    said = mixed_scores([now, other, ({"scores": {"rouge": False, "bertscore_layers": 1}}, score_rules())])
    told = "ROUGE (by rule 1, then by rule 2) and "
    told += "BERTScore (minilm by rule 1, then minilm by rule 2, then minilm 1 by rule 1)"
    assert said == f"How scores are taken was changed between snapshots: figures of {told}{end}"


def test_what_compares_is_what_was_taken_by_the_same_model_and_rule():
    now = ({"scores": {"clip_model": "a"}}, score_rules())
    assert names_taken_otherwise(now, ({"scores": {"clip_model": "a", "clip_videos": 5}}, score_rules())) == ()
    assert names_taken_otherwise(now, ({}, {})) == ("sentence_", "clip_")
    assert names_taken_otherwise(now, ({"scores": {"bertscore_layers": 1}}, score_rules())) == ("bertscore_", "clip_")
    assert all(any(name.startswith(begin) for begin in _NAMES.values()) for name in ALL_NAMES)


def test_scores_that_compare_with_nothing_are_named():
    now, old = ({}, score_rules()), ({"scores": {"bertscore_layers": 1}}, {})
    told = "No earlier snapshot took sentence cosine and BERTScore as the newest did: no drift of it is looked for."
    assert never_taken_so(now, [old, old]) == told
    assert never_taken_so(now, [old, now]) == never_taken_so(now, []) == ""
    assert never_taken_so(now, [({"scores": {"sentence_model": None, "bertscore_model": None}}, {})]) == ""


def test_importing_any_module_of_the_room_loads_no_model_library():
    modules = ("settings", "pairs", "weights", "rouge", "sentence", "bertscore", "clip", "scorers", "statistics")
    imports = "; ".join(f"import gex_pipeline.validate.{module}" for module in modules)
    heavy = "{'torch', 'transformers', 'sentence_transformers', 'bert_score', 'nltk', 'rouge_score', 'ray'}"
    code = f"{imports}; import sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_the_settings_loads_no_numpy():
    code = "import gex_pipeline.validate.settings, sys; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
