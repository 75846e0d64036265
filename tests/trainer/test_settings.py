from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.settings import IamSettings, ModelSettings, read_model_settings, shipped_names

ROOT = Path(__file__).parents[2]


def test_the_recommended_tree_is_the_defaults_and_writes_each_of_them_out():
    assert shipped_names() == ["iam-paper", "iam-recommended"]
    assert read_model_settings("iam-recommended") == ModelSettings()


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_tree_writes_out_every_key_that_has_a_value(name):
    """A bound of 1/τ was on in the tree of the paper, which names none, and did not stand in it."""
    shipped = read_model_settings(name)
    for part in (shipped.iam, shipped.towers, shipped):
        assert set(type(part).model_fields) - part.model_fields_set <= {"revision", "shape"}  # none by default


def test_the_tree_of_the_paper_has_nothing_that_the_paper_does_not_name():
    paper = read_model_settings("iam-paper")
    iam, towers = paper.iam, paper.towers
    assert (iam.mlp_ratio, iam.residual, iam.norm, iam.final_norm) == (0, False, "none", False)
    assert (iam.temporal_position, iam.value_init) == ("none", "random")
    assert (towers.class_token, towers.mask_padding, towers.long_text) == (False, False, "truncate")
    assert (towers.weights, towers.frozen, paper.shared_base) == ("pretrained", False, False)
    assert paper.initial_temperature == 0.07
    # AdamW moves a weight by about its learning rate a step, under the cosine half of that in the mean: so far 1/τ gets
    num_steps = 5 * 12_000_000 / 512
    assert math.exp(num_steps * 1e-4 / 2) / paper.initial_temperature < paper.max_logit_scale / 100


def test_a_file_is_read_and_what_is_wrong_in_it_is_named(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("[model.iam]\ndim = 256\n")
    assert read_model_settings(file).iam == IamSettings(dim=256)
    file.write_text("[model.iam]\ndims = 256\n")
    with pytest.raises(ValueError, match="dims"):
        read_model_settings(file)
    file.write_text("dim = 256\n")
    with pytest.raises(ValueError, match=r"mine.toml: expected a table \[model\]"):
        read_model_settings(file)
    with pytest.raises(FileNotFoundError, match="no model settings 'iam-papr'; expected a TOML file or one of"):
        read_model_settings("iam-papr")


def test_heads_that_do_not_divide_the_width_are_an_error():
    with pytest.raises(ValueError, match=r"iam.dim is 512, iam.num_heads 7"):
        IamSettings(num_heads=7)


def test_settings_load_no_model_library():
    program = (
        "import sys, trainer.settings, trainer.flops\nprint('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT, check=True
    )
    assert done.stdout.split() == ["False", "False"]


def test_the_model_knows_nothing_of_the_pipeline():
    for name in ("settings", "iam", "towers", "tokens", "model", "loss", "grad_cache", "flops"):
        assert "gex_pipeline" not in (ROOT / "trainer" / f"{name}.py").read_text(encoding="utf-8"), name
