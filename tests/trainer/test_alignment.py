"""Scores by swapping one frame's features are those of masking whole videos."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.trainer.tiny_models import IMAGE_PX, draw_batch, settings_of, tiny_model
from trainer.alignment import Masking, align, masked, resized

MASKING = Masking(patch_px=6, stride_px=5, batch_size=4)  # 3 x 3 places, in batches of 4, 4 and 1
NUM_FRAMES = 3


def naive(model, frames_T3HW, text_KD, n_iter, masking):
    """Every masked video through the whole model, one at a time."""
    pixels_T3HW = model.image_tower.normalised(frames_T3HW)
    similarity_K = text_KD @ model.encode_video(pixels_T3HW[None], n_iter)[0]
    places = masking.places(*frames_T3HW.shape[-2:])
    scores = torch.zeros(len(text_KD), len(frames_T3HW), len(places), dtype=text_KD.dtype)
    for frame in range(len(frames_T3HW)):
        for number, (top, left) in enumerate(places):
            video = pixels_T3HW.clone()
            video[frame, :, top : top + masking.patch_px, left : left + masking.patch_px] = 0
            scores[:, frame, number] = similarity_K - text_KD @ model.encode_video(video[None], n_iter)[0]
    rows = masking.num_rows(frames_T3HW.shape[-2])
    return similarity_K, scores.unflatten(2, (rows, -1))


@pytest.fixture
def one_video():
    video, _ = draw_batch(1, num_frames=NUM_FRAMES)
    return video[0]


def positioned(model):
    """The same model with positions that are not zero."""
    with torch.no_grad():
        model.temporal_position.position.normal_(generator=torch.Generator().manual_seed(3))
    return model


@pytest.mark.parametrize("n_iter", [0, 1, 3])
@torch.inference_mode()
def test_scores_are_those_of_masking_whole_videos(one_video, n_iter):
    model = positioned(tiny_model())
    _, texts = draw_batch(2)
    text_KD = model.encode_text(texts, 1)
    found = align(model, one_video, text_KD, n_iter, MASKING)
    similarity_K, scores_KTYX = naive(model, one_video, text_KD, n_iter, MASKING)
    assert found.scores_KTYX.shape == (2, NUM_FRAMES, 3, 3)
    assert found.scores_KTYX.abs().max() > 1e-4  # or the comparison would say nothing
    torch.testing.assert_close(found.scores_KTYX, scores_KTYX, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.similarity_K, similarity_K, rtol=0, atol=1e-10)


@torch.inference_mode()
def test_in_single_precision_scores_are_the_same_to_the_fifth_digit(one_video):
    model = positioned(tiny_model()).float()
    _, texts = draw_batch(1)
    text_KD = model.encode_text(texts, 3)
    found = align(model, one_video, text_KD, 3, MASKING)
    torch.testing.assert_close(found.scores_KTYX, naive(model, one_video, text_KD, 3, MASKING)[1], rtol=0, atol=1e-5)


@torch.inference_mode()
def test_with_the_tower_in_bf16_scores_stay_those_of_32_bits(one_video):
    """The rest of the model stays in 32 bits: rounding there would be as large as what a mask does."""
    model = positioned(tiny_model()).float()
    _, texts = draw_batch(2)
    text_KD = model.encode_text(texts, 1)
    exact = align(model, one_video, text_KD, 3, MASKING).scores_KTYX
    rounded = align(model, one_video, text_KD, 3, replace(MASKING, precision="bf16")).scores_KTYX
    apart = (rounded - exact).abs().max()
    assert 0 < apart < 0.05 * exact.abs().max()


@torch.inference_mode()
def test_without_positions_and_norms_and_with_projections_scores_are_the_same(one_video):
    model = tiny_model(settings_of({"temporal_position": "none", "norm": "none"}, {"projected": True}))
    _, texts = draw_batch(1)
    text_KD = model.encode_text(texts, 1)
    found = align(model, one_video, text_KD, 2, MASKING)
    torch.testing.assert_close(found.scores_KTYX, naive(model, one_video, text_KD, 2, MASKING)[1], rtol=0, atol=1e-10)


@torch.inference_mode()
def test_32_bit_numbers_keep_their_bits_while_scores_are_computed(one_video):
    """PyTorch lets CUDA's convolutions round to TF32: the patches' were rounded, and differences of cosines with it."""
    model, seen = tiny_model(), []

    def flags():
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    before = flags()
    model.image_tower.register_forward_hook(lambda *_: seen.append(flags()))
    _, texts = draw_batch(1)
    align(model, one_video, model.encode_text(texts, 1), 1, MASKING)
    assert before[0] and set(seen) == {(False, False)}
    assert flags() == before


def test_masking_what_is_mean_colour_already_changes_nothing():
    model = tiny_model().float()
    mean_3 = (model.image_tower.pixel_mean.flatten() * 255).round().to(torch.uint8)
    frames = mean_3[None, :, None, None].expand(2, 3, IMAGE_PX, IMAGE_PX).contiguous()
    text_KD = torch.nn.functional.normalize(torch.ones(1, 16), dim=-1)
    assert align(model, frames, text_KD, 1, MASKING).scores_KTYX.abs().max() < 1e-3


def test_a_mask_covers_its_patch_and_nothing_else():
    copies = masked(torch.ones(3, 8, 8), [(0, 0), (4, 2)], 4)
    assert copies[0, :, :4, :4].abs().sum() == copies[1, :, 4:, 2:6].abs().sum() == 0
    assert copies.sum() == 2 * 3 * (64 - 16)


def test_the_papers_mask_has_thirteen_by_thirteen_places():
    places = Masking().places(224, 224)
    assert len(places) == 169 and places[-1] == (192, 192) and Masking().num_rows(224) == 13


def test_a_mask_larger_than_a_frame_is_refused():
    with pytest.raises(ValueError, match="a mask of 32 px does not fit into frames of 16x16 px"):
        Masking().places(16, 16)
    with pytest.raises(ValueError, match="expected positive numbers"):
        Masking(stride_px=0).places(224, 224)


def test_scores_are_resized_bilinearly():
    scores = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    assert resized(scores, 4, 4, Masking(2, 2))[0].tolist() == [[0.0, 0.25, 0.75, 1.0]] * 4


@pytest.mark.parametrize(("patch_px", "stride_px"), [(32, 50), (96, 16), (64, 16), (32, 32), (32, 16)])
def test_a_peak_is_drawn_in_the_mask_that_it_belongs_to(patch_px, stride_px):
    """Scores were stretched over the whole frame: with a mask of 96 px a peak lay 35 px away from its middle."""
    masking = Masking(patch_px, stride_px)
    num, places = masking.num_rows(224), masking.places(224, 224)
    for row, column in ((0, 0), (0, num - 1), (num // 2, num // 2), (num - 1, 1)):
        scores = torch.zeros(1, num, num)
        scores[0, row, column] = 3.0
        drawn_HW = resized(scores, 224, 224, masking)[0]
        top, left = places[row * num + column]
        # the middle of a mask lies between two pixels, half a pixel from either
        assert drawn_HW[top + patch_px // 2, left + patch_px // 2] >= 3 * (1 - 0.5 / stride_px) ** 2
        where = (drawn_HW == drawn_HW.max()).nonzero()
        assert (where.min(0).values >= torch.tensor([top, left])).all()
        assert (where.max(0).values < torch.tensor([top, left]) + patch_px).all()


def test_pixels_that_no_mask_reached_score_nothing():
    drawn_HW = resized(torch.ones(1, 4, 4), 224, 224, Masking(32, 50))[0]  # the last mask ends at 182 px
    assert drawn_HW[:182, :182].unique().tolist() == [1.0]
    assert not drawn_HW[182:].any() and not drawn_HW[:, 182:].any()


def test_at_the_papers_mask_scores_go_on_to_the_edges():
    drawn_HW = resized(torch.arange(13.0)[None, None].expand(1, 13, 13), 224, 224, Masking())[0]
    assert drawn_HW[0, :16].unique().tolist() == [0.0] and drawn_HW[0, 208:].unique().tolist() == [12.0]
    assert drawn_HW[7, [16, 24, 32]].tolist() == pytest.approx([1 / 32, 17 / 32, 33 / 32])
