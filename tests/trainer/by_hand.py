"""Figures by counting one by one, to compare those of the trainer with: no blocks, no rule for ties but the mean."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from trainer.catalog import CatalogSample, read_catalog
from trainer.frames import read_frames
from trainer.media_reader import MediaReader
from trainer.pretrained import Pretrained
from trainer.videos import video_frames


class Place(NamedTuple):
    """How many candidates stand above the best right one, how many wrong ones beside it, how many right ones there."""

    above: int
    tied: int
    right: int

    @property
    def rank(self) -> float:
        return 1 + self.above + self.tied / (self.right + 1)

    def chance_within(self, k: int) -> float:
        """That the first right one is among the first k, when those of one score are in random order."""
        places = min(max(k - self.above, 0), self.tied + self.right)
        return 1 - math.comb(self.tied, places) / math.comb(self.tied + self.right, places)


def places_by_hand(scores_QC: np.ndarray, right_QC: np.ndarray) -> list[Place]:
    found = []
    for scores, right in zip(np.float32(scores_QC), right_QC, strict=True):
        best = scores[right].max()
        same = scores == best
        found.append(Place(int((scores > best).sum()), int((same & ~right).sum()), int((same & right).sum())))
    return found


def check_retrieval(figures: dict[str, Any], places: list[Place]) -> None:
    """That these are the figures of those places."""
    ranks = [place.rank for place in places]
    assert figures["num_queries"] == len(places)
    assert figures["mean_rank"] == pytest.approx(np.mean(ranks))
    assert figures["median_rank"] == np.median(ranks)
    for k in (1, 5, 10):
        assert figures[f"r{k}_percent"] == pytest.approx(100 * np.mean([place.chance_within(k) for place in places]))


def unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def samples_of(output: Path, name: str) -> list[CatalogSample]:
    with read_catalog(str(output)) as catalog:
        return [catalog.sample(name, number) for number in range(catalog.num_samples(name))]


def video_of(pretrained: Pretrained, sample: CatalogSample, num_frames: int, n_iter: int) -> np.ndarray:
    frames = read_frames(sample, num_frames, pretrained.image_size_px, MediaReader())
    return _encoded(pretrained, frames, n_iter)


def file_of(
    pretrained: Pretrained, path: Path, num_frames: int, n_iter: int, part: tuple[float, float] | None = None
) -> np.ndarray:
    return _encoded(pretrained, video_frames(path.read_bytes(), "mov", num_frames, 32, part), n_iter)


def logits_of(
    pretrained: Pretrained, path: Path, num_frames: int, n_iter: int, part: tuple[float, float] | None = None
) -> np.ndarray:
    frames = torch.from_numpy(video_frames(path.read_bytes(), "mov", num_frames, 32, part))[None]
    with torch.inference_mode():
        return pretrained.classifier(frames, n_iter)[0].double().numpy()


def text_of(pretrained: Pretrained, text: str, n_iter: int) -> np.ndarray:
    with torch.inference_mode():
        return pretrained.model.encode_text(pretrained.tokenizer([text]), n_iter)[0].double().numpy()


def _encoded(pretrained: Pretrained, frames: np.ndarray, n_iter: int) -> np.ndarray:
    with torch.inference_mode():
        return pretrained.model.encode_video(torch.from_numpy(frames)[None], n_iter)[0].double().numpy()
