"""Frames of one sample: a byte range of a tar in; RGB bytes of shape (d, 3, S, S) out, upright, in presentation order.

A sample's media is a video, an image (for d = 1), or a run of frames that were decoded when the data set was made, as
`gex_pipeline.shard_format` has it. Frames are cut to the square in their middle and scaled to S. Of a video the d
frames are those that `trainer.videos` takes; of a run that holds more than d, the ones in the middle of d equal parts,
or at random places of these.

What cannot be decoded is a `DamagedMediaError`. Caches no media.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch.nn import functional

from gex_pipeline.errors import GexError
from gex_pipeline.media.source import MAX_PICTURE_PX
from gex_pipeline.shard_format import FRAMES_EXTENSION, DamagedRunError, split_run
from trainer.media_reader import DamagedMediaError, MediaReader
from trainer.order import mixed
from trainer.videos import VIDEO_FORMATS, Frames, Places, places_of, video_frames

if TYPE_CHECKING:
    from trainer.catalog_rows import CatalogSample

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp")

_FRAMES_AT_ONCE = 8  # scaled together, which costs less a frame, as far as they stay in the processor's cache


def read_frames(
    sample: CatalogSample, num_frames: int, size_px: int, media: MediaReader, places: Places | None = None
) -> Frames:
    """``num_frames`` frames (d, 3, S, S) of a sample, of whatever kind its media is; an image knows no `places`.

    Raises:
        DamagedMediaError: it cannot be read or decoded.
        GexError: storage refuses; or more than one frame is asked of an image.
    """
    kind = sample.media_extension
    check_num_frames(sample.granularity, [kind], num_frames)
    content = media.read(sample)
    if kind == FRAMES_EXTENSION:
        return run_frames(content, num_frames, size_px, places)
    if kind in IMAGE_EXTENSIONS:
        return _image_frame(content, size_px)[None]
    if kind in VIDEO_FORMATS:
        part = None if sample.start_s is None or sample.end_s is None else (sample.start_s, sample.end_s)
        return video_frames(content, VIDEO_FORMATS[kind], num_frames, size_px, part, places)
    raise DamagedMediaError(f"media of kind {kind!r} cannot be read; expected a video, an image or frames")


def check_num_frames(granularity: str, extensions: Sequence[str], num_frames: int) -> None:
    """Refuse more than one frame of media with these extensions where there are images among them.

    Raises:
        GexError: so it is.
    """
    if num_frames > 1 and not set(IMAGE_EXTENSIONS).isdisjoint(extensions):
        raise GexError(f"{granularity} holds images, of which {num_frames} frames are asked; set num_frames to 1")


def random_places(num_frames: int, seed: int, epoch: int, key: str) -> list[float]:
    """For each of d equal spans of a sample a place in [0, 1) that depends on these words only, in every process."""
    hashed = mixed(np.arange(num_frames, dtype=np.uint64), "frames", seed, epoch, key)
    # as many bits as a float holds: all 64 could be rounded up to 1
    return [(value >> 11) / 2.0**53 for value in hashed.tolist()]


def _image_frame(content: bytes, size_px: int) -> Frames:
    """An image file as one frame (3, S, S), turned as its EXIF data say.

    Raises:
        DamagedMediaError: it is no whole image, or too large.
    """
    frame = np.empty((3, size_px, size_px), np.uint8)
    _scale([_middle_square(content, size_px)], frame[None])
    return frame


def _middle_square(content: bytes, size_px: int) -> Frames:
    """The square in the middle of an image, upright, (H, H, 3); its side is at least that, where the image's is."""
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP", "BMP")) as image:
            if image.width * image.height > MAX_PICTURE_PX:
                raise DamagedMediaError(f"an image of {image.width}x{image.height} pixels is too large")
            image.draft("RGB", (size_px, size_px))  # JPEG can be decoded at a half, a quarter, ... of its size
            # each of these makes a copy, also where there is nothing to do
            upright = ImageOps.exif_transpose(image) if "exif" in image.info else image
            upright = upright.convert("RGB") if upright.mode != "RGB" else upright
            upright.load()  # here, where what is damaged is named
            picture_HWC = np.asarray(upright, dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DamagedMediaError(f"an image cannot be decoded: {error}") from error
    side_px = min(picture_HWC.shape[:2])
    top, left = (picture_HWC.shape[0] - side_px) // 2, (picture_HWC.shape[1] - side_px) // 2
    return picture_HWC[top : top + side_px, left : left + side_px]


def _scale(squares_HHC: Sequence[Frames], into_DCSS: Frames) -> None:
    """Square pictures of one size to S."""
    size_px = into_DCSS.shape[-1]
    if len(squares_HHC[0]) == size_px:
        np.stack([square_HHC.transpose(2, 0, 1) for square_HHC in squares_HHC], out=into_DCSS)
        return
    # gives Pillow's values (to one or two of 255), with the processor's vector instructions: nine times as fast
    pictures = torch.from_numpy(np.stack(squares_HHC)).permute(0, 3, 1, 2)
    scaled = functional.interpolate(pictures, (size_px, size_px), mode="bicubic", antialias=True)
    np.copyto(into_DCSS, scaled.numpy())


def run_frames(content: bytes, num_frames: int, size_px: int, places: Places | None = None) -> Frames:
    """Frames (d, 3, S, S) out of a run of tar members; with fewer than d, some come more than once.

    Of a run of just d frames all are taken, whatever the places.

    Raises:
        DamagedMediaError: it is no whole run, or one of the frames cannot be decoded.
    """
    try:
        pictures = split_run(content)
    except DamagedRunError as error:
        raise DamagedMediaError(str(error)) from error
    if not pictures:
        raise DamagedMediaError("there are no frames in it")
    chosen = [int(place * len(pictures) / num_frames) for place in places_of(num_frames, places)]
    frames = np.empty((num_frames, 3, size_px, size_px), np.uint8)
    for start in range(0, num_frames, _FRAMES_AT_ONCE):
        squares = [_middle_square(pictures[index], size_px) for index in chosen[start : start + _FRAMES_AT_ONCE]]
        if len({square.shape for square in squares}) > 1:
            raise DamagedMediaError("its frames have several sizes")
        _scale(squares, frames[start : start + len(squares)])
    return frames
