"""Cosine of sentence embeddings: pairs of texts in, one cosine in [-1, 1] a pair out.

A text that is longer than the model reads (256 tokens for MiniLM) is read in windows of whole sentences; its vector is
their mean, weighted by their tokens. The composition of a batch moves a score by float rounding only. Inference only;
nothing is trained or stored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gex_pipeline.summarize.writing import SENTENCE_END, UNSPACED_COMMAS
from gex_pipeline.validate.pairs import check_parallel, is_blank
from gex_pipeline.validate.weights import find_weights, loading, need_module, pick_device

_BATCH = 32  # larger is not faster on a CPU
_WORD = re.compile(rf"\s*(?:[^\s{UNSPACED_COMMAS}]+[{UNSPACED_COMMAS}]*|[{UNSPACED_COMMAS}]+)")


class SentenceCosine:
    """A sentence-transformers model; None or "minilm" is the packaged MiniLM, else a directory or a hub id.

    Raises:
        MissingExtraError: sentence-transformers or the packaged weights are not installed.
        GexError: the model cannot be loaded.
    """

    def __init__(self, model: str | None = None, *, device: str | None = None) -> None:
        library = need_module("sentence_transformers", "sentence-transformers")
        weights = find_weights(model)
        with loading(weights):
            self._model = library.SentenceTransformer(
                weights.source, device=pick_device(device), local_files_only=weights.is_local
            )
        self._model.float()  # half precision checkpoints would give other scores on other devices
        self.signature = weights.name

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embeddings (n, dim), float32 of unit norm; the row of a blank text is zero."""
        filled = [row for row, text in enumerate(texts) if not is_blank(text)]
        vectors = np.zeros((len(texts), int(self._model.get_embedding_dimension())), dtype=np.float32)
        if not filled:
            return vectors
        windows = [self._windows(texts[row]) for row in filled]
        units = self._model.encode(
            [text for of_text in windows for text, _ in of_text],
            batch_size=_BATCH,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        start = 0
        for row, of_text in zip(filled, windows, strict=True):
            end = start + len(of_text)
            vectors[row] = (
                units[start] if end == start + 1 else _unit_mean(units[start:end], [num for _, num in of_text])
            )
            start = end
        return vectors

    def _windows(self, text: str) -> list[tuple[str, int]]:
        """A text in pieces that the model reads whole, with their tokens: sentences, of a longer one words."""
        room = self._room_tokens()
        if room is None or len(text) <= room or self._num_tokens([text])[0] <= room:
            return [(text, 1)]
        sentences = [sentence for sentence in SENTENCE_END.split(text) if sentence.strip()]
        pieces: list[tuple[str, int]] = []
        for sentence, num_tokens in zip(sentences, self._num_tokens(sentences), strict=True):
            if num_tokens <= room:
                pieces.append((sentence, num_tokens))
            else:
                words = _WORD.findall(sentence)
                for word, num in zip(words, self._num_tokens(words), strict=True):
                    pieces += self._halved(word, num, room)
        return _filled(pieces, room)

    def _halved(self, word: str, num_tokens: int, room: int) -> list[tuple[str, int]]:
        """A word, or its halves, and theirs, until the model reads each whole: some scripts go on without a space."""
        if num_tokens <= room or len(word) == 1:
            return [(word, num_tokens)]
        halves = [word[: len(word) // 2], word[len(word) // 2 :]]
        numbers = self._num_tokens(halves)
        return [piece for half, num in zip(halves, numbers, strict=True) for piece in self._halved(half, num, room)]

    def _room_tokens(self) -> int | None:
        """Tokens of a text that the model reads, without those that it sets around it; None: as many as there are."""
        limit, tokenizer = self._model.max_seq_length, getattr(self._model, "tokenizer", None)
        if limit is None or not callable(tokenizer):  # a mean of word vectors has no limit, and no such tokenizer
            return None
        return max(1, int(limit) - int(tokenizer.num_special_tokens_to_add()))

    def _num_tokens(self, texts: list[str]) -> list[int]:
        ids = self._model.tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        return [len(one) for one in ids]

    def __call__(self, a: Sequence[str], b: Sequence[str]) -> list[float]:
        """One cosine a pair, in the order given; 0 where either text is blank.

        Raises:
            ValueError: the lists differ in length.
        """
        check_parallel(a, b)
        vectors = self.encode([*a, *b])
        return row_cosines(vectors[: len(a)], vectors[len(a) :])


def _filled(pieces: list[tuple[str, int]], room: int) -> list[tuple[str, int]]:
    """Neighbours joined as long as they fit; a sign that alone does not is left to the model, which cuts it."""
    windows: list[tuple[str, int]] = []
    for text, num_tokens in pieces:
        if windows and windows[-1][1] + num_tokens <= room:
            before, num_before = windows[-1]
            windows[-1] = (before + text, num_before + num_tokens)
        else:
            windows.append((text.lstrip(), min(num_tokens, room)))
    return windows


def _unit_mean(units: npt.NDArray[np.float32], weights: list[int]) -> npt.NDArray[np.float32]:
    """The weighted mean of unit vectors (n, dim), brought to unit norm."""
    mean = np.average(units.astype(np.float64), axis=0, weights=weights)
    unit: npt.NDArray[np.float32] = (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)
    return unit


def row_cosines(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> list[float]:
    """Dot product of each row of `a` (n, dim) with the same row of `b` (n, dim), both of unit norm or zero.

    Raises:
        ValueError: the shapes differ.
    """
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"expected two matrices (n, dim) of one shape, found {a.shape} and {b.shape}")
    # rounding can leave [-1, 1] by one float
    cosines: list[float] = np.clip(np.einsum("nd,nd->n", a, b, dtype=np.float64), -1.0, 1.0).tolist()
    return cosines
