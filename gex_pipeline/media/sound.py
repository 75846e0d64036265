"""The sound track of a joined video: spans of files in, one AAC track that fits the pictures out.

Every segment gets exactly as many samples as its pictures last: what is missing is silence, what is
too much is left out. Sound is always encoded anew, since AAC frames of different clips cannot be cut
to the pictures' times. Works as a stream: a fraction of a second is held at any time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.audio.stream
import av.container
import av.error
import numpy as np
from numpy.typing import NDArray

from gex_pipeline.media.source import container_start_s, open_input

RATE_HZ = 48_000
_BIT_RATE = 128_000
_GAP_SAMPLES = RATE_HZ // 20  # smaller jumps are rounding of the container's clock
_BLOCK_SAMPLES = 1024
_PREROLL_S = 1.0  # decoding begins this much before a span
_RATES_HZ = range(4_000, 768_001)  # at one value a second, a packet of a megabyte would become a hundred gigabytes


@dataclass(frozen=True)
class SoundSpan:
    """The sound that belongs to one segment; ``start_s`` counts from the start of the file's time."""

    path: Path
    start_s: float
    duration_s: Fraction


class SoundTrack:
    """Encodes spans one after the other into a track of an output that somebody else fills with pictures."""

    def __init__(self, output: av.container.OutputContainer, spans: Sequence[SoundSpan]) -> None:
        self._output = output
        self._stream = output.add_stream("aac", rate=RATE_HZ, options={"flags": "+bitexact"})
        self._stream.codec_context.layout = "stereo"
        self._stream.codec_context.bit_rate = _BIT_RATE
        self._blocks = _joined_blocks(spans)
        self._position_samples = 0

    def advance(self, time_s: float) -> None:
        """Write sound up to a time of the output, so that both tracks stay side by side in the file."""
        while self._position_samples < time_s * RATE_HZ:
            block_CS = next(self._blocks, None)
            if block_CS is None:
                return
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block_CS), format="fltp", layout="stereo")
            frame.sample_rate = RATE_HZ
            frame.time_base = Fraction(1, RATE_HZ)
            frame.pts = self._position_samples
            self._position_samples += block_CS.shape[1]
            self._output.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write what is left."""
        self.advance(float("inf"))
        self._output.mux(self._stream.encode(None))


def _joined_blocks(spans: Sequence[SoundSpan]) -> Iterator[NDArray[np.float32]]:
    end_s, position_samples = Fraction(0), 0
    for span in spans:
        end_s += span.duration_s
        num_samples = round(end_s * RATE_HZ) - position_samples  # counted from the start: rounding does not add up
        position_samples += num_samples
        yield from _fitted(_sound_of(span), num_samples)


def _fitted(sound: Iterator[tuple[int, NDArray[np.float32]]], num_samples: int) -> Iterator[NDArray[np.float32]]:
    """Exactly `num_samples`, with silence where there is no sound."""
    written = 0
    for position, block_CS in sound:
        if position >= num_samples:
            break
        fresh_CS = block_CS[:, max(0, written - position) : num_samples - position]
        if fresh_CS.shape[1] == 0:
            continue  # it lies before the span
        yield from _silence(max(0, position - written))
        yield fresh_CS
        written = max(written, position) + fresh_CS.shape[1]
    yield from _silence(num_samples - written)


def _silence(num_samples: int) -> Iterator[NDArray[np.float32]]:
    while num_samples > 0:
        yield np.zeros((2, min(num_samples, _BLOCK_SAMPLES)), np.float32)
        num_samples -= _BLOCK_SAMPLES


def _sound_of(span: SoundSpan) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (position in the span, samples (2, S)) in the common form; the position may be negative."""
    with open_input(span.path, {}) as container:
        stream = next((stream for stream in container.streams.audio if stream.codec_context is not None), None)
        if stream is None:
            return
        stream.codec_context.thread_count = 1
        zero_s = container_start_s(container) + span.start_s
        if span.start_s > _PREROLL_S:
            container.seek(int((zero_s - _PREROLL_S) * av.time_base))
        position: int | None = None
        for frame in _in_common_form(_frames(container, stream)):
            if frame.pts is None or frame.time_base is None:
                continue  # no telling where it belongs; silence stands for it
            heard = round((float(frame.pts * frame.time_base) - zero_s) * RATE_HZ)
            if position is None or abs(heard - position) > _GAP_SAMPLES:
                position = heard
            block_CS = frame.to_ndarray().astype(np.float32, copy=False)
            yield position, block_CS
            position += block_CS.shape[1]


def _in_common_form(frames: Iterator[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    form: tuple[str, str, int] | None = None
    resampler = _resampler()
    for frame in frames:
        if frame.sample_rate not in _RATES_HZ:
            continue  # silence stands for it
        if form != (form := (frame.format.name, frame.layout.name, frame.sample_rate)):
            resampler = _resampler()  # it holds to the first form it sees, and tracks may change theirs
        yield from resampler.resample(frame)


def _resampler() -> av.AudioResampler:
    return av.AudioResampler(format="fltp", layout="stereo", rate=RATE_HZ)


def _frames(container: av.container.InputContainer, stream: av.audio.stream.AudioStream) -> Iterator[av.AudioFrame]:
    """Decoded frames; damage costs its own sound only, which becomes silence."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            return  # nothing more can be read
        if packet is None:
            return
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            continue
