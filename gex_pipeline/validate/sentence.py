"""Cosine of sentence embeddings: pairs of texts in, one cosine in [-1, 1] a pair out.

A text is cut at the model's own length (256 tokens for MiniLM). The composition of a batch moves a
score by float rounding only. Inference only; nothing is trained or stored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gex_pipeline.validate.pairs import check_parallel, is_blank
from gex_pipeline.validate.weights import find_weights, loading, need_module, pick_device

_BATCH = 32  # larger is not faster on a CPU


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
        vectors = np.zeros((len(texts), self._dim()), dtype=np.float32)
        if filled:
            vectors[filled] = self._model.encode(
                [texts[row] for row in filled],
                batch_size=_BATCH,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        return vectors

    def __call__(self, a: Sequence[str], b: Sequence[str]) -> list[float]:
        """One cosine a pair, in the order given; 0 where either text is blank.

        Raises:
            ValueError: the lists differ in length.
        """
        check_parallel(a, b)
        vectors = self.encode([*a, *b])
        return row_cosines(vectors[: len(a)], vectors[len(a) :])

    def _dim(self) -> int:
        # renamed in sentence-transformers 5.x; the old name warns, and disappears one day
        name = "get_embedding_dimension"
        ask = getattr(self._model, name, None) or self._model.get_sentence_embedding_dimension
        return int(ask())


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
