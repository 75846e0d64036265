"""Features as points on a plane (t-SNE): unit vectors in, positions in [0, 1] out; the same for the same vectors.

Neighbours in the plane are neighbours among the features; distances between groups and their sizes mean nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gex_pipeline.validate.weights import need_module

MIN_POINTS = 8  # fewer make no picture
_PERPLEXITY = 30.0


def plane_points(vectors_ND: npt.NDArray[np.float32], seed: int) -> npt.NDArray[np.float64]:
    """Positions (N, 2), each coordinate scaled to [0, 1].

    Raises:
        ValueError: fewer than `MIN_POINTS` vectors.
        MissingExtraError: scikit-learn is not installed.
    """
    num = len(vectors_ND)
    if num < MIN_POINTS:
        raise ValueError(f"expected at least {MIN_POINTS} vectors, found {num}")
    tsne = need_module("sklearn.manifold", "scikit-learn").TSNE(
        2, metric="cosine", init="pca", perplexity=min(_PERPLEXITY, (num - 1) / 3), random_state=seed, n_jobs=1
    )
    points = tsne.fit_transform(vectors_ND).astype(np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    scaled: npt.NDArray[np.float64] = (points - low) / np.maximum(high - low, 1e-9)
    return scaled
