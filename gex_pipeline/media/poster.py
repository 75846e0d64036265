"""One small picture of a video that need not be a file: an open stream in, a JPEG out.

Reads the header and the group of pictures around the wanted time, and no more; so the picture is the one at that
time or, in a group that is longer than a poster is worth, a somewhat earlier one.
"""

from __future__ import annotations

from typing import BinaryIO

import av
import av.container
import av.error
import av.video.reformatter
import av.video.stream
import numpy as np
from numpy.typing import NDArray

from gex_pipeline.errors import Reason, RejectedError
from gex_pipeline.media.decoding import picture_of
from gex_pipeline.media.frames import encode_jpeg
from gex_pipeline.media.outline import check_index, outline_of
from gex_pipeline.media.source import DECODER_LIMITS, SAFE_INPUT, check_size, container_start_s

_MAX_DECODED = 96  # frames
_QUALITY = 80


def poster_jpeg(stream: BinaryIO, time_s: float, height_px: int) -> bytes:
    """The picture of a video at a time, upright, with square pixels, at most so high.

    Raises:
        RejectedError: not_a_video, no_frames, undecodable or media_too_large.
    """
    check_index(outline_of(stream))
    stream.seek(0)
    try:
        with av.open(stream, "r", options=SAFE_INPUT | DECODER_LIMITS, metadata_errors="replace") as container:
            picture_HWC = _picture(container, time_s, height_px)
    except av.error.FFmpegError as error:
        raise RejectedError(Reason.undecodable, f"it cannot be read as a video: {error.strerror}") from error
    return encode_jpeg(picture_HWC, _QUALITY)


def _picture(container: av.container.InputContainer, time_s: float, height_px: int) -> NDArray[np.uint8]:
    stream = container.streams.best("video")
    if not isinstance(stream, av.video.stream.VideoStream):
        raise RejectedError(Reason.not_a_video, "it has no video track")
    stream.codec_context.thread_count = 1
    stream.codec_context.options = DECODER_LIMITS
    wanted_s = container_start_s(container) + time_s
    container.seek(round(wanted_s * av.time_base))
    shown = None
    for number, frame in enumerate(container.decode(stream)):
        if shown is not None and ((frame.time or 0.0) > wanted_s or number >= _MAX_DECODED):
            break
        shown = frame
    if shown is None:
        raise RejectedError(Reason.no_frames, "no frame comes out of its decoder")

    def fit(size_px: tuple[int, int]) -> tuple[int, int]:
        check_size(size_px, "are shown with")  # also where a picture of absurd pixels would be a small poster
        scale = min(1.0, height_px / size_px[1])
        width, height = (max(1, round(side * scale)) for side in size_px)
        return width, height

    return picture_of(shown, stream, av.video.reformatter.VideoReformatter(), fit)
