"""Pictures out of shards: the bytes of an image file in, its pixels as RGB out; what is damaged is one kind of error.

Pixels are read here and not at their first use, so that damage behind a sound header shows here too.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from gex_pipeline.errors import Reason, RejectedError

if TYPE_CHECKING:
    from PIL import Image


def open_picture(content: bytes, within_px: tuple[int, int] | None = None) -> Image.Image:
    """The picture with its pixels as RGB, not larger than `within_px` (width, height) where that is given.

    Raises:
        RejectedError: undecodable.
    """
    from gex_pipeline.media.sampling import PICTURE_ERRORS, opened_picture

    try:
        with opened_picture(io.BytesIO(content)) as picture:
            if within_px is not None:
                picture.thumbnail(within_px)
            return picture.convert("RGB")
    except PICTURE_ERRORS as error:
        raise RejectedError(Reason.undecodable, f"a picture cannot be decoded: {type(error).__name__}") from error
