"""Figures are those of a ViT-B/32 CLIP, worked out by hand from its shapes; the counter of torch agrees with them."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.trainer.tiny_models import draw_batch, settings_of, tiny_clip_config, tiny_model
from trainer.flops import (
    iam_flops,
    image_tower_shape,
    model_flops,
    text_tower_shape,
    tower_flops,
)
from trainer.settings import IamSettings, ModelSettings, TowerSettings, read_model_settings
from trainer.tokens import TextTokens


@pytest.fixture(scope="module")
def vit_b_32():
    from transformers import CLIPConfig

    return CLIPConfig()


def flops_of(config, *, frames, video, text, settings=None):
    settings = settings or ModelSettings()
    return model_flops(settings, config, num_frames=frames, n_iter_video=video, n_iter_text=text)


def count(function, *arguments, **keywords):
    # one kind of attention, the one that the counter knows on every device
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        function(*arguments, **keywords)
    return counter.get_total_flops()


def test_the_towers_of_vit_b_32_take_8_818_and_5_960_gflop(vit_b_32):
    assert round(tower_flops(image_tower_shape(vit_b_32)) / 1e9, 3) == 8.818
    assert round(tower_flops(text_tower_shape(vit_b_32)) / 1e9, 3) == 5.960


def test_the_counter_of_torch_agrees_for_the_towers_of_vit_b_32(vit_b_32):
    from transformers import CLIPModel

    with torch.device("meta"):
        clip = CLIPModel(vit_b_32)
        pixels, ids = torch.zeros(1, 3, 224, 224), torch.zeros(1, 77, dtype=torch.int64)
        assert count(clip.get_image_features, pixels) == tower_flops(image_tower_shape(vit_b_32))
        assert count(clip.get_text_features, ids) == tower_flops(text_tower_shape(vit_b_32))


@pytest.mark.parametrize("n_iter", [0, 1, 3])
@pytest.mark.parametrize(
    "settings",
    [
        settings_of(),
        settings_of({"mlp_ratio": 0, "norm": "none", "residual": False}, {"class_token": False}),
        settings_of({}, {"projected": True}),
    ],
    ids=["recommended", "literal", "projected"],
)
def test_the_counter_of_torch_agrees_for_the_whole_model(settings, n_iter):
    model, (video, texts) = tiny_model(settings).requires_grad_(False), draw_batch(1, num_frames=3)
    expected = flops_of(tiny_clip_config(), frames=3, video=n_iter, text=1, settings=settings).forward
    assert count(model, video, texts, n_iter_video=n_iter, n_iter_text=1) == expected


def test_a_text_of_several_windows_takes_the_operations_of_all_of_them(vit_b_32):
    model, (video, texts) = tiny_model(settings_of()).requires_grad_(False), draw_batch(1, num_frames=3)
    wide = TextTokens(texts.ids_BWL.repeat(1, 4, 1), texts.mask_BWL.repeat(1, 4, 1), texts.truncated_B)
    counts = {"num_frames": 3, "n_iter_video": 1, "n_iter_text": 2, "num_windows": 4}
    expected = model_flops(settings_of(), tiny_clip_config(), **counts).forward
    assert count(model, video, wide, n_iter_video=1, n_iter_text=2) == expected
    counts = {"num_frames": 1, "n_iter_video": 0, "n_iter_text": 1}  # an image with a long text: most of it is text
    one, eight = (model_flops(ModelSettings(), vit_b_32, **counts, num_windows=number) for number in (1, 8))
    assert eight.text_tower == 8 * one.text_tower and eight.video_iam == one.video_iam
    assert round(eight.training / one.training, 2) == 3.67


@pytest.mark.parametrize(("num_frames", "n_iter", "gmac"), [(16, 1, 0.132), (32, 3, 0.138)])
def test_the_iam_takes_a_few_percent_of_a_frame(num_frames, n_iter, gmac):
    wide = IamSettings(mlp_ratio=4)  # for which the figures were worked out by hand
    flops = iam_flops(wide, num_features=num_frames * 50, feature_dim=768, n_iter=n_iter)
    assert round(flops / 2e9 / num_frames, 3) == gmac


@pytest.mark.parametrize(
    ("num_frames", "video", "text", "training_gflop"),
    [(1, 0, 1, 51.9), (16, 1, 1, 458.8), (32, 3, 1, 896.0), (32, 3, 3, 900.5)],
)
def test_training_on_a_sample_of_each_granularity(vit_b_32, num_frames, video, text, training_gflop):
    wide = ModelSettings(iam=IamSettings(mlp_ratio=4))
    flops = flops_of(vit_b_32, frames=num_frames, video=video, text=text, settings=wide)
    # these figures hold CLIP's projections of one token a frame and a text, which the model has no use for
    projections = 3 * 2 * (num_frames * 768 * 512 + 512 * 512)
    assert round((flops.training + projections) / 1e9, 1) == training_gflop
    assert flops.training == 3 * flops.forward


def test_a_frame_takes_4_7_billion_multiplications_as_in_table_9(vit_b_32):
    for settings in (ModelSettings(), read_model_settings("iam-paper")):
        for num_frames, n_iter in ((16, 1), (32, 3)):
            flops = flops_of(vit_b_32, frames=num_frames, video=n_iter, text=n_iter, settings=settings)
            assert 4.6 < flops.per_frame / 2e9 < 4.8


def test_frozen_towers_have_no_backward_pass(vit_b_32):
    frozen = ModelSettings(towers=TowerSettings(frozen=True))
    flops = flops_of(vit_b_32, frames=16, video=1, text=1, settings=frozen)
    towers, iams = flops.image_tower + flops.text_tower, flops.video_iam + flops.text_iam
    assert flops.training == towers + 3 * iams
    assert flops.forward == towers + iams


def test_three_passes_of_the_recommended_module_cost_at_most_what_the_papers_figure_5_says(vit_b_32):
    flops = flops_of(vit_b_32, frames=32, video=3, text=3)
    more = (flops.video_iam + flops.text_iam) / (flops.image_tower + flops.text_tower)
    assert 0.025 < more < 0.033
