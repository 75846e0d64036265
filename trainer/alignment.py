"""Alignment scores: how much of a video's similarity to a text goes when a small patch of one frame is masked.

A video and text vectors in, one score a place of the mask out: S - S_masked, the cosine without the mask less the
cosine with it. Positive where the patch speaks for the text. The paper does not say what a mask is filled with: here
its pixels take the mean colour CLIP was trained on, which is 0 once they are normalised.

Only one frame of a masked video differs from the video, so the image tower sees each masked frame once and no frame
of another; keys and values of unchanged frames are computed once. What comes out is that of masking whole videos, up
to rounding. The IAM computes with the weights' own precision: differences of cosines are too small for half of it. The
image tower may take half, since its rounding reaches the score through one frame in T. Draws nothing.

Paper: GEXIA appendix G.
"""

# Tensors: T frames, K texts, D embedding, Y and X places of the mask, R masked frames at a time, P features of one
# frame, C their width, H heads, M = T * P features of the video, d width of a head.

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from gex_pipeline.progress import progress
from trainer.iam import ApproximationBlock, Iam
from trainer.model import VideoTextModel


@dataclass(frozen=True)
class Masking:
    """The mask and how it moves; the defaults are the paper's."""

    patch_px: int = 32
    stride_px: int = 16
    batch_size: int = 32
    """Masked frames that are computed at a time."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the image tower: the weights' own, or bf16 where it multiplies matrices."""

    def places(self, height_px: int, width_px: int) -> list[tuple[int, int]]:
        """Upper left corners, row by row, of all places at which the whole mask lies in the frame.

        Raises:
            ValueError: there is none, or a size is not positive.
        """
        if min(self.patch_px, self.stride_px, self.batch_size) < 1:
            raise ValueError(f"{self}: expected positive numbers")
        if self.patch_px > min(height_px, width_px):
            raise ValueError(f"a mask of {self.patch_px} px does not fit into frames of {width_px}x{height_px} px")
        tops = range(0, height_px - self.patch_px + 1, self.stride_px)
        return [(top, left) for top in tops for left in range(0, width_px - self.patch_px + 1, self.stride_px)]

    def num_rows(self, height_px: int) -> int:
        """Places below each other."""
        return (height_px - self.patch_px) // self.stride_px + 1


class Alignment(NamedTuple):
    """Of one video and K texts."""

    similarity_K: Tensor
    """Cosines without a mask."""
    scores_KTYX: Tensor
    """What each place of each frame contributes."""


def align(
    model: VideoTextModel, frames_T3HW: Tensor, text_KD: Tensor, n_iter: int, masking: Masking | None = None
) -> Alignment:
    """Scores of a video (bytes) for texts, given as unit vectors; on the CPU.

    Raises:
        ValueError: the mask does not fit into a frame.
    """
    masking = masking or Masking()
    places = masking.places(frames_T3HW.shape[-2], frames_T3HW.shape[-1])
    device = model.logit_scale.device
    reporter = progress()
    reporter.stage("masked frames", len(frames_T3HW) * len(places), "frames")
    scores = []
    with torch.inference_mode(), without_tf32():
        pixels_T3HW = model.image_tower.normalised(frames_T3HW.to(device))
        swapped = SwappedFrames(model, pixels_T3HW, n_iter, masking)
        text_DK = text_KD.to(device, pixels_T3HW.dtype).T
        similarity_K = (swapped.whole_D @ text_DK).cpu()
        for frame, pixels_3HW in enumerate(pixels_T3HW):
            for first in range(0, len(places), masking.batch_size):
                chosen = places[first : first + masking.batch_size]
                vectors_RD = swapped.encode(frame, masked(pixels_3HW, chosen, masking.patch_px))
                scores.append(similarity_K - (vectors_RD @ text_DK).cpu())
                reporter.advance(len(chosen))
    rows = masking.num_rows(frames_T3HW.shape[-2])
    return Alignment(similarity_K, torch.cat(scores).T.unflatten(1, (len(frames_T3HW), rows, -1)).contiguous())


@contextmanager
def without_tf32() -> Iterator[None]:
    """A region in which CUDA rounds no 32-bit number to TF32's ten bits, as PyTorch lets convolutions do by default."""
    convolution, product = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolution.allow_tf32, product.allow_tf32
    convolution.allow_tf32 = product.allow_tf32 = False
    try:
        yield
    finally:
        convolution.allow_tf32, product.allow_tf32 = before


def masked(pixels_3HW: Tensor, places: list[tuple[int, int]], patch_px: int) -> Tensor:
    """Copies (R, 3, H, W) of a normalised frame, each with the mean colour at one place."""
    copies_R3HW = pixels_3HW.repeat(len(places), 1, 1, 1)
    for copy_3HW, (top, left) in zip(copies_R3HW, places, strict=True):
        copy_3HW[:, top : top + patch_px, left : left + patch_px] = 0
    return copies_R3HW


def resized(scores_TYX: Tensor, height_px: int, width_px: int, masking: Masking) -> Tensor:
    """Scores a pixel (T, H, W): at the middle of a place its own, bilinear between places, beyond the outermost theirs.

    Pixels past the last place, which no mask of its row or column reached, score 0.
    """
    shares_HY, shares_WX = (_shares(size_px, masking) for size_px in (height_px, width_px))
    scores = scores_TYX.to(shares_HY.dtype)
    return (shares_HY @ scores @ shares_WX.T).to(scores_TYX.dtype)


def _shares(size_px: int, masking: Masking) -> Tensor:
    """How much each place in a row or column has of each pixel, (size_px, places)."""
    num = masking.num_rows(size_px)
    pixel_1 = torch.arange(size_px, dtype=torch.float64) + 0.5
    place_1 = ((pixel_1 - masking.patch_px / 2) / masking.stride_px).clamp(0, num - 1)
    shares = (1 - (place_1[:, None] - torch.arange(num)).abs()).clamp(min=0)
    reached = pixel_1 < (num - 1) * masking.stride_px + masking.patch_px
    return shares * reached[:, None]


class SwappedFrames:
    """One video of which a single frame at a time is exchanged for others."""

    def __init__(self, model: VideoTextModel, pixels_T3HW: Tensor, n_iter: int, masking: Masking) -> None:
        """Compute what all exchanges share: the video's own vector, `whole_D`, its keys and its values."""
        self.model, self.n_iter, self.masking = model, n_iter, masking
        features_TPC = torch.cat([self._features(part) for part in pixels_T3HW.split(masking.batch_size)])
        self.position_T1C = _positions(model, features_TPC)
        features_TPC = features_TPC + self.position_T1C
        self.num_features = features_TPC.shape[1]
        iam = model.video_iam
        blocks = [iam.unrolled, iam.shared] if n_iter else [iam.unrolled]
        self._memories = [_Memory(block, features_TPC.flatten(0, 1)[None], masking.batch_size) for block in blocks]
        self.whole_D = self._vectors(1)[0]

    def encode(self, frame: int, pixels_R3HW: Tensor) -> Tensor:
        """Unit vectors (R, D) of R videos, in which the frame of this number is one of these; R as in a batch or less.

        Raises:
            ValueError: there are more than `batch_size`.
        """
        num = len(pixels_R3HW)
        if num > self.masking.batch_size:
            raise ValueError(f"{num} frames to swap in at a time, room for {self.masking.batch_size}")
        features_RPC = self._features(pixels_R3HW) + self.position_T1C[frame]
        start = frame * self.num_features
        for memory in self._memories:
            memory.put(start, features_RPC)
        vectors_RD = self._vectors(num)
        for memory in self._memories:
            memory.restore(start, self.num_features)
        return vectors_RD

    def _features(self, pixels_F3HW: Tensor) -> Tensor:
        if self.masking.precision == "fp32":
            return self.model.image_tower(pixels_F3HW)
        with torch.autocast(pixels_F3HW.device.type, torch.bfloat16):
            return self.model.image_tower(pixels_F3HW).to(pixels_F3HW.dtype)

    def _vectors(self, num: int) -> Tensor:
        iam = self.model.video_iam
        embeddings_RND = approximate(iam, [memory.first(num) for memory in self._memories], self.n_iter)
        return functional.normalize(iam.pool(embeddings_RND), dim=-1)


def approximate(iam: Iam, keys_values: list[tuple[Tensor, Tensor]], n_iter: int) -> Tensor:
    """A^{n_iter} (R, N, D) from keys and values of the unrolled block, and where it runs of the shared one."""
    embeddings_RND: Tensor = iam.unrolled(iam.base[None], *keys_values[0], None)
    for _ in range(n_iter):
        embeddings_RND = iam.shared(embeddings_RND, *keys_values[1], None)
    return embeddings_RND


class _Memory:
    """Keys and values of one block for a batch of videos that differ in one frame at most."""

    def __init__(self, block: ApproximationBlock, features_1MC: Tensor, batch_size: int) -> None:
        self._project: Callable[[Tensor], tuple[Tensor, Tensor]] = block.project_features
        self._own = self._project(features_1MC)
        # written once: an exchange touches one frame of each, and reading is all that the rest costs
        self._held = tuple(part.repeat(batch_size, 1, 1, 1) for part in self._own)

    def put(self, start: int, features_RPC: Tensor) -> None:
        """Let the features from `start` on be these in the first R videos."""
        num, length = features_RPC.shape[:2]
        for held_BHMd, new_RHPd in zip(self._held, self._project(features_RPC), strict=True):
            held_BHMd[:num, :, start : start + length] = new_RHPd

    def restore(self, start: int, length: int) -> None:
        """Let them be the video's own again."""
        for held_BHMd, own_1HMd in zip(self._held, self._own, strict=True):
            held_BHMd[:, :, start : start + length] = own_1HMd[:, :, start : start + length]

    def first(self, num: int) -> tuple[Tensor, Tensor]:
        """Keys and values (num, H, M, d)."""
        keys, values = self._held
        return keys[:num], values[:num]


def _positions(model: VideoTextModel, features_TPC: Tensor) -> Tensor:
    """What is added to the features of each frame for its place in the video, (T, 1, C)."""
    nothing_T1C = torch.zeros_like(features_TPC[:, :1])
    return nothing_T1C if model.temporal_position is None else model.temporal_position(nothing_T1C[None])[0]
