from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gex_pipeline.errors import Reason, RejectedError
from gex_pipeline.report.pictures import open_picture
from tests.shards import damage

PIXELS = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)


def encoded(kind: str, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_comes_with_its_pixels_as_rgb_and_as_small_as_asked_for(kind):
    assert open_picture(encoded(kind)).size == (80, 60)
    assert open_picture(encoded(kind), (40, 40)).size == (40, 30)
    grey = open_picture(encoded("PNG", "L"))
    assert (grey.mode, np.ptp(np.asarray(grey), axis=2).max()) == ("RGB", 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damage_of_any_kind_is_a_rejection(kind):
    """Zeros over the header, an end that is missing, zeros within."""
    content = encoded(kind)
    middle = len(content) // 2
    damaged = [bytes(16) + content[16:], content[:middle], b"", content[:middle] + bytes(len(content) - middle)]
    num_rejected = 0
    for broken in damaged:
        for size_px in (None, (24, 18)):
            try:
                assert open_picture(broken, size_px).mode == "RGB"  # a JPEG's damage within is painted over
            except RejectedError as error:
                assert error.reason == Reason.undecodable
                num_rejected += 1
    assert num_rejected >= 6


def test_a_picture_that_would_fill_the_memory_is_a_rejection(monkeypatch):
    """Pillow lets 179 million pixels pass: 1.5 GB out of a file of 700 kB."""
    for size_px in ((6001, 6000), (9_000, 9_000)):
        with pytest.raises(RejectedError, match="DecompressionBombError"):
            open_picture(damage.png_that_says_it_is(*size_px))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(RejectedError, match="DecompressionBombError"):
        open_picture(encoded("PNG"))
