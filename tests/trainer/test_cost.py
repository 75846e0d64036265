"""Costs are those of the shapes, and both sides of a timing do the work that they say."""

from __future__ import annotations

import json

import pytest
import torch

from gex_pipeline.errors import GexError
from tests.trainer.tiny_models import settings_of, tiny_clip_config
from trainer.cost import (
    POOLING,
    TOWERS,
    Clock,
    Load,
    Subject,
    flops_of,
    flops_ratio,
    make_sides,
    measure,
    num_parameters,
    pooling_flops,
    rounds,
    subject_of,
)
from trainer.data_settings import GranularitySettings

LOAD = Load(num_videos=2, num_frames=3, iterations=(0, 2), repeats=2)


def tiny_subject(**towers) -> Subject:
    reading = GranularitySettings(num_frames=3, n_iter_video=2, n_iter_text=1)
    return Subject("tiny", settings_of(None, towers), tiny_clip_config(), {"LVLT": reading})


def test_a_shipped_tree_needs_no_network_and_stands_for_vit_b_32():
    subject = subject_of("iam-paper")
    assert pooling_flops(subject.clip_config, 1) / 1e9 == pytest.approx(8.818 + 5.960, abs=1e-3)
    assert list(subject.granularities) == ["SVST", "LVLT", "LVST", "IT"]
    long = flops_of(subject, subject.granularities["LVLT"])
    assert long.num_frames == 32 and long.per_frame / 1e9 == pytest.approx(9.24, abs=0.01)
    assert flops_ratio(subject, 32, 3) == pytest.approx(0.026, abs=5e-4)


def test_parameters_are_those_of_the_parts():
    counts = num_parameters(subject_of("iam-paper"))
    # CLIP ViT-B/32 has 151,277,313 with its projections (768 x 512 and 512 x 512) and temperature
    assert counts["image tower"] + counts["text tower"] == 151_277_313 - 768 * 512 - 512 * 512 - 1
    assert counts["temperature"] == 1
    assert set(counts) == {"image tower", "text tower", "video IAM", "text IAM", "temperature"}


def test_a_shared_base_is_counted_once():
    apart = tiny_subject()
    shared = Subject("shared", settings_of(shared_base=True), apart.clip_config, apart.granularities)
    base = apart.settings.iam.num_embeddings * apart.settings.iam.dim
    assert sum(num_parameters(apart).values()) - sum(num_parameters(shared).values()) == base


def test_another_clip_and_a_trained_model_have_their_own_shapes(tiny_clip_folder, tiny_model_folder):
    settings, model = subject_of("iam-recommended", str(tiny_clip_folder)), subject_of(str(tiny_model_folder))
    for subject in (settings, model):
        assert subject.clip_config.vision_config.patch_size == 8 and subject.clip_config.projection_dim == 16
    assert model.settings.iam.dim == 16 and list(model.granularities) == ["LVLT", "LVST", "IT"]


def test_what_is_no_model_is_named(tmp_path, tiny_model_folder):
    with pytest.raises(GexError, match="no model at 'nothing'"):
        subject_of("nothing")
    with pytest.raises(GexError, match=r"'nothing.toml' holds no settings of a model"):
        subject_of("nothing.toml")
    with pytest.raises(GexError, match="--clip goes with settings"):
        subject_of(str(tiny_model_folder), "clip")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(GexError, match="describes a 'bert'; expected a CLIP"):
        subject_of("iam-paper", str(tmp_path))
    (tmp_path / "own.toml").write_text("[model.towers]\nshape = {}\n")
    with pytest.raises(GexError, match="name the model it trained, or give --clip"):
        subject_of(str(tmp_path / "own.toml"))


@pytest.mark.parametrize("towers", [{}, {"projected": True}, {"class_token": True, "mask_padding": False}])
def test_parts_timed_apart_make_the_vectors_of_the_whole(towers):
    whole, apart = make_sides(tiny_subject(**towers), LOAD, torch.device("cpu"))
    assert list(whole) == [POOLING, "0", "2"] and list(apart) == [TOWERS, POOLING, "0", "2"]
    with torch.inference_mode():
        for name, run in whole.items():
            for vectors, parts in zip(run(), apart[name](), strict=True):
                assert vectors.shape == (2, 16)
                torch.testing.assert_close(vectors, parts, rtol=0, atol=1e-5)
                torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(2))


def test_rounds_run_forth_and_back_and_the_first_is_not_counted():
    order = []
    sides = {name: lambda name=name: order.append(name) for name in "ab"}
    seconds = rounds(sides, 2, Clock(torch.device("cpu")))
    assert "".join(order) == "baabba"
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}


def test_a_timing_has_a_row_for_each_number_of_passes():
    timing = measure(tiny_subject(), LOAD, torch.device("cpu"))
    assert [ratio.n_iter for ratio in timing.ratios] == [0, 2]
    assert timing.pooling_s > 0 and timing.towers_s > 0
    assert all(ratio.seconds > 0 and len(ratio.whole) == 2 for ratio in timing.ratios)
    assert timing.ratios[1].flops > timing.ratios[0].flops > 0
