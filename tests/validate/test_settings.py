from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest
from pydantic import ValidationError

from gex_pipeline.validate.settings import ScorerSettings


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
