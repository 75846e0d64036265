from __future__ import annotations

import math

import pytest
import torch

from tests.trainer.tiny_models import (
    IMAGE_PX,
    MAX_TOKENS,
    TINY_IAM,
    draw_batch,
    gradients,
    settings_of,
    tiny_clip_config,
    tiny_model,
)
from trainer.alignment import Masking, SwappedFrames, masked
from trainer.loss import vtc_loss
from trainer.model import VideoTextModel, parameter_groups
from trainer.settings import read_model_settings
from trainer.tokens import TextTokens
from trainer.towers import towers_of

EXACT = {"rtol": 1e-10, "atol": 1e-12}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def small_tree(name):
    """The settings of a shipped tree, its modules as small as the tiny model's."""
    given = read_model_settings(name)
    iam = given.iam.model_copy(update={key: TINY_IAM[key] for key in ("num_embeddings", "dim", "num_heads")})
    return given.model_copy(update={"iam": iam})


def test_a_batch_becomes_unit_vectors_whatever_the_frames_and_iterations(model):
    for num_frames, n_iter_video, n_iter_text in ((1, 0, 1), (2, 1, 1), (4, 3, 3), (6, 3, 1)):
        video, texts = draw_batch(2, num_frames)
        video_BD, text_BD, scale = model(video, texts, n_iter_video=n_iter_video, n_iter_text=n_iter_text)
        assert video_BD.shape == text_BD.shape == (2, 16)
        assert scale.shape == (1,)
        torch.testing.assert_close(video_BD.norm(dim=1), torch.ones(2).double(), **EXACT)
        torch.testing.assert_close(text_BD.norm(dim=1), torch.ones(2).double(), **EXACT)


def test_each_branch_has_its_own_number_of_iterations(model):
    video, texts = draw_batch(2)
    one, other = (model(video, texts, n_iter_video=n, n_iter_text=1) for n in (1, 3))
    assert torch.equal(one.text_BD, other.text_BD)
    assert not torch.allclose(one.video_BD, other.video_BD)
    assert torch.equal(model.encode_video(video, 3), other.video_BD)
    assert torch.equal(model.encode_text(texts, 1), other.text_BD)


def test_a_pair_is_encoded_alike_in_any_batch(model):
    video, texts = draw_batch(4)
    whole = model(video, texts, n_iter_video=1, n_iter_text=3)
    alone = model(video[2:3], TextTokens(*(part[2:3] for part in texts)), n_iter_video=1, n_iter_text=3)
    torch.testing.assert_close(alone.video_BD[0], whole.video_BD[2], **EXACT)
    torch.testing.assert_close(alone.text_BD[0], whole.text_BD[2], **EXACT)


def test_what_stands_behind_the_end_of_a_text_changes_nothing_unless_padding_counts(model):
    _, texts = draw_batch(4)
    other = texts._replace(ids_BWL=torch.where(texts.mask_BWL, texts.ids_BWL, 7))
    assert not torch.equal(other.ids_BWL, texts.ids_BWL)
    assert torch.equal(model.encode_text(other, 3), model.encode_text(texts, 3))
    literal = tiny_model(settings_of({}, {"mask_padding": False}))
    assert not torch.allclose(literal.encode_text(other, 3), literal.encode_text(texts, 3))


@pytest.mark.parametrize("mask_padding", [True, False])
def test_windows_that_only_another_text_needs_change_nothing(mask_padding):
    model = tiny_model(settings_of({}, {"long_text": "windows", "mask_padding": mask_padding}))
    _, texts = draw_batch(2)
    empty = torch.zeros_like(texts.mask_BWL)
    wider = texts._replace(
        ids_BWL=torch.cat([texts.ids_BWL, torch.full_like(texts.ids_BWL, 3)], dim=1),
        mask_BWL=torch.cat([texts.mask_BWL, empty], dim=1),
    )
    torch.testing.assert_close(model.encode_text(wider, 2), model.encode_text(texts, 2), **EXACT)
    second = texts.mask_BWL.clone()
    second[0] = False
    wider = wider._replace(mask_BWL=torch.cat([texts.mask_BWL, second], dim=1))
    changed = (model.encode_text(wider, 2) - model.encode_text(texts, 2)).abs().amax(1) > 1e-6
    assert changed.tolist() == [False, True]


def test_without_positions_the_order_of_frames_is_lost_and_with_learned_ones_it_counts_after_a_step():
    video, texts = draw_batch(3, num_frames=4)
    none = tiny_model(settings_of({"temporal_position": "none"}))
    torch.testing.assert_close(none.encode_video(video.flip(1), 3), none.encode_video(video, 3), **EXACT)
    learned = tiny_model(settings_of())
    assert torch.equal(learned.encode_video(video, 3), none.encode_video(video, 3))
    torch.testing.assert_close(learned.encode_video(video.flip(1), 3), learned.encode_video(video, 3), **EXACT)
    optimiser = torch.optim.AdamW(learned.parameters(), lr=1e-2)
    vtc_loss(learned(video, texts, n_iter_video=3, n_iter_text=3)).backward()
    optimiser.step()
    moved = (learned.encode_video(video.flip(1), 3) - learned.encode_video(video, 3)).abs().max()
    assert moved > 1e-5


@pytest.mark.parametrize(
    ("settings", "is_a_set"),
    [
        (settings_of({"temporal_position": "none"}), True),
        (small_tree("iam-paper"), True),
        (small_tree("iam-recommended"), False),
    ],
    ids=["none", "iam-paper", "iam-recommended"],
)
def test_frames_stay_a_set_whatever_the_weights_where_a_model_has_no_positions_to_learn(settings, is_a_set):
    """Positions begin with zeros: a model that has them, but should not, shows it only once it has learned."""
    model, (video, _) = tiny_model(settings), draw_batch(3, num_frames=4)
    assert (model.temporal_position is None) == is_a_set
    assert any(name.startswith("temporal_position") for name in model.state_dict()) != is_a_set
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw, dtype=parameter.dtype), alpha=0.3)
    moved = (model.encode_video(video.flip(1), 3) - model.encode_video(video, 3)).abs().max()
    assert moved < 1e-10 if is_a_set else moved > 1e-3


def test_a_parameter_that_had_no_part_in_a_step_is_neither_moved_nor_decayed():
    model, (video, texts) = tiny_model(), draw_batch(3, num_frames=1)
    groups = parameter_groups(model, learning_rate_towers=1e-3, learning_rate=1e-2, weight_decay=0.2)
    optimiser = torch.optim.AdamW(groups)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    vtc_loss(model(video, texts, n_iter_video=0, n_iter_text=1)).backward()
    optimiser.step()
    still = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    assert {name for name in still if not name.endswith("bias")} == {
        name for name in before if name.startswith("video_iam.shared.") and not name.endswith("bias")
    }
    assert all(parameter.grad is None for parameter in model.video_iam.shared.parameters())
    assert set(gradients(model)) >= {name for name in before if name.startswith("text_iam.shared.")}


def test_the_temperature_starts_at_the_setting_not_at_that_of_the_checkpoint_and_is_bounded(model):
    assert tiny_clip_config().logit_scale_init_value == 2.6592
    assert model.scale().item() == pytest.approx(1 / 0.07, rel=1e-6)
    assert tiny_model(settings_of(initial_temperature=0.5)).scale().item() == pytest.approx(2)
    hot = tiny_model()
    with torch.no_grad():
        hot.logit_scale.fill_(10)
    assert hot.scale().item() == pytest.approx(100)
    hot.bound_logit_scale()
    assert hot.logit_scale.item() == pytest.approx(math.log(100))
    hot.scale().sum().backward()
    assert hot.logit_scale.grad.item() == pytest.approx(100)


def test_the_bound_of_the_papers_tree_bounds_nothing_that_32_bits_hold_badly():
    """Beyond 100 the temperature stood still, which the paper does not say."""
    bound = read_model_settings("iam-paper").max_logit_scale
    for scale in (5_000.0, bound):
        model, (video, texts) = tiny_model(settings_of(max_logit_scale=bound)).float(), draw_batch(4)
        with torch.no_grad():
            model.logit_scale.fill_(math.log(scale))
        model.bound_logit_scale()
        loss = vtc_loss(model(video, texts, n_iter_video=3, n_iter_text=3))
        loss.backward()
        assert model.scale().item() == pytest.approx(scale, rel=1e-4)
        assert loss.isfinite()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
        assert model.logit_scale.grad.item() != 0  # it can go down


def test_groups_are_towers_and_the_rest_and_vectors_bases_and_positions_do_not_decay(model):
    groups = parameter_groups(model, learning_rate_towers=1e-6, learning_rate=1e-4, weight_decay=0.2)
    assert {group["name"]: (group["lr"], group["weight_decay"]) for group in groups} == {
        "towers_decay": (1e-6, 0.2),
        "towers_no_decay": (1e-6, 0.0),
        "rest_decay": (1e-4, 0.2),
        "rest_no_decay": (1e-4, 0.0),
    }
    where = {id(parameter): group["name"] for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(where) == len(list(model.parameters()))
    found = {name: where[id(parameter)] for name, parameter in model.named_parameters()}
    assert found["logit_scale"] == found["video_iam.base"] == found["text_iam.base"] == "rest_no_decay"
    assert found["temporal_position.position"] == found["video_iam.final_norm.weight"] == "rest_no_decay"
    assert found["video_iam.shared.cross.key.weight"] == found["text_iam.unrolled.self_mlp.up.weight"] == "rest_decay"
    assert found["image_tower.encoder.embeddings.position_embedding.weight"] == "towers_no_decay"
    assert found["image_tower.encoder.embeddings.class_embedding"] == "towers_no_decay"
    assert found["text_tower.encoder.embeddings.token_embedding.weight"] == "towers_decay"


def test_frozen_towers_are_in_no_group():
    frozen = tiny_model(settings_of({}, {"frozen": True}))
    groups = parameter_groups(frozen, learning_rate_towers=1, learning_rate=1, weight_decay=1)
    assert [group["name"] for group in groups] == ["rest_decay", "rest_no_decay"]
    video, texts = draw_batch(2)
    vtc_loss(frozen(video, texts)).backward()
    assert not any(name.startswith(("image_tower", "text_tower")) for name in gradients(frozen))
    assert "video_iam.base" in gradients(frozen)


def test_branches_have_their_own_base_or_one_between_them():
    own, shared = tiny_model(), tiny_model(settings_of(shared_base=True))
    assert count(own) - count(shared) == 4 * 16
    assert shared.video_iam.base is shared.text_iam.base
    names = [name for name, _ in shared.named_parameters() if name.endswith(".base")]
    groups = parameter_groups(shared, learning_rate_towers=1, learning_rate=1, weight_decay=1)
    assert len(names) == 1
    assert sum(parameter is shared.video_iam.base for group in groups for parameter in group["params"]) == 1


def test_values_can_start_as_the_projections_of_the_checkpoint():
    from transformers import CLIPModel

    settings = settings_of({"value_init": "clip_projection"})
    clip = CLIPModel(tiny_clip_config())
    model = VideoTextModel(settings, towers_of(clip, settings.towers))
    assert torch.equal(model.video_iam.unrolled.cross.value.weight, clip.visual_projection.weight)
    assert torch.equal(model.text_iam.unrolled.cross.value.weight, clip.text_projection.weight)


@pytest.mark.parametrize("name", ["iam-paper", "iam-recommended"])
def test_a_shipped_tree_makes_a_model_that_learns(name):
    model, (video, texts) = tiny_model(small_tree(name)), draw_batch(4)
    assert texts.ids_BWL.shape[2] == MAX_TOKENS
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = vtc_loss(model(video, texts, n_iter_video=3, n_iter_text=3))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4


def test_under_autocast_the_embeddings_have_32_bits():
    model, (video, texts) = tiny_model().float(), draw_batch(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(video, texts, n_iter_video=3, n_iter_text=1)
    assert {part.dtype for part in found} == {torch.float32}
    exact = model(video, texts, n_iter_video=3, n_iter_text=1)
    assert (found.video_BD * exact.video_BD).sum(1).min() > 0.99


@pytest.mark.parametrize("shipped", ["iam-paper", "iam-recommended"])
def test_a_step_stays_on_the_device_of_the_weights_and_asks_it_for_no_value(shipped):
    """Tensors of the device "meta" have no values: reading one, or meeting a tensor of the CPU, is an error there."""
    model = tiny_model(small_tree(shipped)).float().train().to("meta")
    (video, texts), nothing = draw_batch(2), torch.device("meta")
    found = model(video.to(nothing), texts.to(nothing), n_iter_video=3, n_iter_text=1)
    (found.logit_scale * found.video_BD @ found.text_BD.T).sum().backward()
    devices = {parameter.grad.device for parameter in model.parameters() if parameter.grad is not None}
    assert {tensor.device for tensor in found} == devices == {nothing}
    frames_T3HW = torch.zeros(3, 3, IMAGE_PX, IMAGE_PX, device=nothing)
    with torch.inference_mode():
        swapped = SwappedFrames(model, frames_T3HW, 3, Masking(batch_size=4))
        assert swapped.encode(1, masked(frames_T3HW[0], [(0, 0), (4, 8)], 8)).device == nothing
