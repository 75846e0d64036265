"""Opens a local file for reading packets or frames; one place that says what libav may open.

Path in, PyAV container and its video stream out. A file's name says nothing about its content: a
playlist or a concat script named ``.mp4`` would make libav open other files or addresses, so only
real containers and only the local file itself are allowed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import av.container
import av.error
import av.stream
import av.video.stream

from gex_pipeline.errors import Reason, RejectedError

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf"
SAFE_INPUT = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}

# The largest picture of H.264 and HEVC at their highest level, which 8K is; a decoder holds up to sixteen of them.
MAX_PICTURE_PX = 36_000_000
MAX_SIDE_PX = 16_384  # of a picture as it is shown; x264 writes none that is longer
DECODER_LIMITS = {"max_pixels": str(MAX_PICTURE_PX)}  # headers lie about the size that a decoder will meet

# Opening a file makes libav decode its first pictures and sounds to learn what the header of an MP4
# already says. Without decoders it cannot, and opening takes a fifth of the time; without parsing each
# packet for what the header says of it too, reading takes two thirds.
_HEADER_ONLY = {"codec_whitelist": "none", "fflags": "noparse"}


def input_url(path: Path) -> str:
    """The path as ffmpeg and libav take it: never an option, never another protocol, whatever its name."""
    return f"file:{path.absolute()}"


def open_input(path: Path, options: dict[str, str]) -> av.container.InputContainer:
    """Open a file as a container, within what is allowed; its titles may be in any character set."""
    return av.open(input_url(path), options=SAFE_INPUT | DECODER_LIMITS | options, metadata_errors="replace")


@contextmanager
def open_video(
    path: Path, *, header_only: bool = False
) -> Iterator[tuple[av.container.InputContainer, av.video.stream.VideoStream]]:
    """Open the file and find its video track.

    ``header_only`` suits files that are read as packets and whose container describes its tracks (ISO media).

    Raises:
        RejectedError: not_a_video, or media_too_large where libav cannot make room for what the file says it holds.
        MemoryError: of this process, which is not libav's: that is no fault of the file's.
    """
    try:
        container = open_input(path, _HEADER_ONLY if header_only else {})
    except av.error.FFmpegError as error:
        if isinstance(error, PermissionError):
            raise
        if isinstance(error, MemoryError):  # libav's own limit is 2 GB at once, however much memory there is
            raise RejectedError(Reason.media_too_large, f"libav cannot make room for it: {error.strerror}") from error
        raise RejectedError(Reason.not_a_video, f"it cannot be opened as a video: {error.strerror}") from error
    with container:
        yield container, video_track(container)


def video_track(container: av.container.InputContainer) -> av.video.stream.VideoStream:
    """The track that is shown; decoding it is single-threaded.

    Raises:
        RejectedError: not_a_video.
    """
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic and stream.codec_context is not None:
            stream.codec_context.thread_count = 1  # a worker has one core, and small clips do not repay threads
            stream.codec_context.options = DECODER_LIMITS
            return stream
    kinds = ", ".join(stream.type for stream in container.streams) or "no tracks at all"
    raise RejectedError(Reason.not_a_video, f"it has no video track that can be read, it has: {kinds}")


def check_size(size_px: tuple[int, int], how: str = "have") -> None:
    """Refuse pictures that are too large as they are stored or, with the shape their pixels are said to have, shown.

    Raises:
        RejectedError: media_too_large.
    """
    width_px, height_px = size_px
    if width_px * height_px > MAX_PICTURE_PX or max(size_px) > MAX_SIDE_PX:
        raise RejectedError(
            Reason.media_too_large,
            f"its pictures {how} {width_px} x {height_px} pixels; {MAX_PICTURE_PX} in all are the most, "
            f"and {MAX_SIDE_PX} a side",
        )


def container_start_s(container: av.container.InputContainer) -> float:
    """Where the file's own time begins, in seconds; cuts count from here, as players do."""
    return (container.start_time or 0) / av.time_base
