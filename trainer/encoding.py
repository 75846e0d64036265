"""A model over samples: batches in, one row of numbers a sample out, with the keys by which rows are found again.

Videos go through as they are read; a text that several samples share is encoded once. Damaged samples have no row and
are named, texts that do not fit the text tower counted. Rows are joined by key, never by their place among samples
that may have been left out.
"""

# Arrays: V samples that could be read, T texts, D embedding, K classes.

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gex_pipeline.errors import GexError
from gex_pipeline.progress import progress
from trainer.loader import Damaged
from trainer.pretrained import Pretrained
from trainer.sequence import SequenceBatch

Floats = NDArray[np.float32]

_TEXTS_AT_ONCE = 256
_NAMED = 3  # damaged samples that an error names


class Batches(Protocol):
    """What a `SequenceLoader` is, or several in turn."""

    granularity: str

    def __len__(self) -> int:
        """Samples that are asked for."""

    def __iter__(self) -> Iterator[SequenceBatch]:
        """All of them, once."""


class EncodedTexts(NamedTuple):
    """One row a text."""

    text_TD: Floats
    num_truncated: int
    """Texts whose end did not fit the text tower and was not read."""


@dataclass(frozen=True)
class EncodedVideos:
    """One row a sample that could be read, in the order of the loader."""

    video_VX: Floats
    """Unit vectors of width D, or logits of K classes."""
    keys: tuple[str, ...]
    texts: tuple[str, ...]
    damaged: tuple[Damaged, ...]

    def row_of(self) -> dict[str, int]:
        """Which row each key has."""
        return {key: row for row, key in enumerate(self.keys)}


@dataclass(frozen=True)
class Encoded:
    """Videos and texts of the samples that could be read: row i of both is sample i."""

    video_VD: Floats
    text_VD: Floats
    keys: tuple[str, ...]
    texts: tuple[str, ...]
    damaged: tuple[Damaged, ...]
    num_truncated_texts: int
    """Of the texts that differ from each other."""


def encode(pretrained: Pretrained, loader: Batches, n_iter_video: int, n_iter_text: int) -> Encoded:
    """Videos and texts of all samples of a loader.

    Raises:
        GexError: no sample can be read, or storage fails.
    """
    videos = encode_videos(pretrained, loader, n_iter_video)
    distinct = list(dict.fromkeys(videos.texts))
    found = encode_texts(pretrained, distinct, n_iter_text)
    place = {text: row for row, text in enumerate(distinct)}
    text_VD = found.text_TD[[place[text] for text in videos.texts]]
    return Encoded(videos.video_VX, text_VD, videos.keys, videos.texts, videos.damaged, found.num_truncated)


def encode_videos(pretrained: Pretrained, loader: Batches, n_iter: int) -> EncodedVideos:
    """Unit vectors (V, D) of the videos of all samples of a loader.

    Raises:
        GexError: no sample can be read, or storage fails.
    """
    return _over(loader, lambda frames_BT3HW: pretrained.encode_videos(frames_BT3HW, n_iter))


def classify_videos(pretrained: Pretrained, loader: Batches, n_iter: int) -> EncodedVideos:
    """Logits (V, K) of the videos of all samples of a loader.

    Raises:
        GexError: the model has no classes, no sample can be read, or storage fails.
    """
    return _over(loader, lambda frames_BT3HW: pretrained.classify(frames_BT3HW, n_iter))


def encode_texts(
    pretrained: Pretrained, texts: Sequence[str], n_iter: int, batch_size: int = _TEXTS_AT_ONCE
) -> EncodedTexts:
    """Unit vectors (T, D), one a text in its order, and how many texts are cut; equal ones are encoded once.

    Raises:
        ValueError: there are no texts.
    """
    distinct = list(dict.fromkeys(texts))
    if not distinct:
        raise ValueError("expected at least one text, found none")
    parts: list[Floats] = []
    is_cut: list[bool] = []
    for start in range(0, len(distinct), batch_size):
        tokens = pretrained.tokenizer(distinct[start : start + batch_size])
        parts.append(pretrained.encode_tokens(tokens, n_iter).numpy())
        is_cut += tokens.truncated_B.tolist()
    place = {text: row for row, text in enumerate(distinct)}
    rows = [place[text] for text in texts]
    return EncodedTexts(np.concatenate(parts)[rows], sum(is_cut[row] for row in rows))


def name_some(damaged: Iterable[Damaged]) -> str:
    """The first of some damaged samples, with what is wrong with them."""
    return "; ".join(f"{one.key}: {one.reason}" for one in list(damaged)[:_NAMED])


def _over(loader: Batches, compute: Callable[[Tensor], Tensor]) -> EncodedVideos:
    shown = progress()
    shown.stage(f"encode {loader.granularity}", len(loader), "samples")
    rows: list[Floats] = []
    keys: list[str] = []
    texts: list[str] = []
    damaged: list[Damaged] = []
    for batch in loader:
        damaged += batch.damaged
        if batch.keys:
            rows.append(compute(batch.frames_BT3HW).numpy())
            keys += batch.keys
            texts += batch.texts
        shown.advance(len(batch.keys) + len(batch.damaged))
    if not rows:
        found = f"; the first are {name_some(damaged)}" if damaged else ""
        raise GexError(f"none of {len(loader)} samples of {loader.granularity} can be read{found}")
    return EncodedVideos(np.concatenate(rows), tuple(keys), tuple(texts), tuple(damaged))
