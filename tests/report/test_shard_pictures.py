from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from gex_pipeline.report.shard_pictures import _BAR, _ends, histograms_picture
from gex_pipeline.shards.looking import _edges


@pytest.mark.parametrize(
    ("lowest", "highest", "quantity", "labels"),
    [
        (0.25, 0.75, "score rouge1", ["0.250", "0.750"]),
        (100.0, 100.4, "duration_s", ["100.000", "100.400"]),  # three digits made 100 of both
        (1.5, 1234.5, "duration_s", ["2", "1 234"]),
        (1, 12, "num_words", ["1", "12"]),  # it ended with 13
        (3, 40, "num_words", ["3", "40"]),
        (0.8, 0.8, "score rouge1", ["0.8"]),  # it went on to 1.8
        (7, 7, "num_words", ["7"]),
    ],
)
def test_an_axis_of_bins_ends_with_the_values(lowest, highest, quantity, labels) -> None:
    edges = _edges(float(lowest), float(highest), quantity)
    assert [words for _, _, words in _ends(edges, is_whole=quantity == "num_words")] == labels
    assert edges[0] == lowest
    if quantity == "num_words":
        assert [high - low for low, high in pairwise(edges)] == [edges[1] - edges[0]] * (len(edges) - 1)
        assert edges[-1] > highest
    else:
        assert edges[-1] == highest


def test_a_value_that_all_samples_share_is_a_narrow_bar_in_the_middle() -> None:
    """0.8 everywhere was one bar as wide as the picture, from 0.8 to 1.8."""
    edges = _edges(0.8, 0.8, "score rouge1")
    content = {"histograms": [{"quantity": "score rouge1", "edges": edges, "counts": {"LVST": [5]}}]}
    pixels_HWC = np.asarray(Image.open(io.BytesIO(histograms_picture(content))).convert("RGB"))
    columns = np.flatnonzero((pixels_HWC == _BAR).all(axis=2).any(axis=0))
    assert 10 < len(columns) < 30
    assert (columns[0] + columns[-1]) / 2 == pytest.approx(pixels_HWC.shape[1] / 2, abs=2)
