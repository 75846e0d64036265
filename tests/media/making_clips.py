"""Makes small videos whose every frame says which clip and which frame it is, and reads that back.

A frame is twelve black or white columns: four bits of clip, eight bits of frame. That survives any
codec, scaling and change of rate, and a wrong, missing or turned picture shows at once.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from gex_pipeline.media.ffmpeg import ffmpeg_binary

NUM_BITS = 12
RATE_HZ = 48_000


def number_of(clip: int, frame: int) -> int:
    return clip << 8 | frame


def picture_of(number: int, size_px: tuple[int, int] = (96, 64)) -> np.ndarray:
    width_px, height_px = size_px
    bits = [number >> bit & 1 for bit in reversed(range(NUM_BITS))]
    columns = np.array([bits[x * NUM_BITS // width_px] for x in range(width_px)], np.uint8) * 200 + 25
    return np.ascontiguousarray(np.broadcast_to(columns[None, :, None], (height_px, width_px, 3)))


def read_number(picture: np.ndarray) -> int:
    """The number in an upright picture, borders of black not counted."""
    rows = np.flatnonzero(picture.max(axis=(1, 2)) > 18)
    height_px, width_px = picture.shape[:2]
    if len(rows):
        height_px = int(rows[0] + rows[-1])
    centres = [(2 * bit + 1) * width_px // (2 * NUM_BITS) for bit in range(NUM_BITS)]
    row = picture[height_px // 2].mean(axis=-1)
    return sum(int(row[x] > 125) << (NUM_BITS - 1 - bit) for bit, x in enumerate(centres))


def numbers_in(path: Path) -> list[int]:
    """What every frame of a file says, in order, decoded without the code under test."""
    with av.open(str(path)) as container:
        return [read_number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


@dataclass
class Make:
    """What `make_clip` writes."""

    num_frames: int = 12
    size_px: tuple[int, int] = (96, 64)
    fps: Fraction | int = 25
    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=lambda: {"preset": "ultrafast", "crf": "12", "bf": "2", "g": "250"})
    times_s: Sequence[float] | None = None  # presentation of each frame; none: constant rate from zero
    pix_fmt: str = "yuv420p"
    turn: Callable[[np.ndarray], np.ndarray] | None = None  # how pictures are stored
    tone_hz: int | None = None
    tone_s: float | None = None
    movflags: str = "+faststart"


def make_clip(path: Path, clip: int, make: Make | None = None) -> Path:
    make = make or Make()
    options = {"movflags": make.movflags} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", container_options=options) as output:
        stored = picture_of(0, make.size_px) if make.turn is None else make.turn(picture_of(0, make.size_px))
        video = output.add_stream(make.codec, rate=make.fps, options=make.options)
        video.width, video.height, video.pix_fmt = stored.shape[1], stored.shape[0], make.pix_fmt
        video.codec_context.thread_count = 1
        time_base = Fraction(1, 1000) if make.times_s is not None else 1 / Fraction(make.fps)
        video.codec_context.time_base = time_base
        audio = output.add_stream("aac", rate=RATE_HZ) if make.tone_hz else None
        packets = []
        for number in range(make.num_frames):
            picture = picture_of(number_of(clip, number), make.size_px)
            frame = av.VideoFrame.from_ndarray(picture if make.turn is None else make.turn(picture), format="rgb24")
            frame.time_base = time_base
            frame.pts = number if make.times_s is None else round(make.times_s[number] * 1000)
            packets += video.encode(frame)
        packets += video.encode(None)
        if audio is not None:
            packets += _tone(audio, make)
        for packet in packets:
            output.mux(packet)
    return path


def draw_hdr(
    path: Path, transfer: int, columns: Sequence[tuple[int, int, int]], *, matrix: int = 9, num_frames: int = 5
) -> Path:
    """HEVC, 128 x 64, of columns of one colour each, as (Y, Cb, Cr) in ten bits; transfer and matrix by H.273."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx265", rate=25, options={"preset": "ultrafast", "crf": "4"})
        stream.codec_context.options |= {"x265-params": "log-level=error:pools=1"}
        stream.width, stream.height = 128, 64
        stream.pix_fmt = "yuv420p10le"
        said = {"color_trc": transfer, "color_primaries": matrix, "colorspace": matrix, "color_range": 1}
        for name, value in said.items():
            setattr(stream.codec_context, name, value)
        for number in range(num_frames):
            frame = av.VideoFrame(128, 64, "yuv420p10le")
            for plane, channel in zip(frame.planes, np.array(columns, np.uint16).T, strict=True):
                row = np.repeat(channel, plane.width // len(columns))
                row = np.pad(row, (0, plane.line_size // 2 - len(row)), "edge")
                plane.update(np.tile(row, (plane.height, 1)).tobytes())
            for name, value in said.items():
                setattr(frame, name, value)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def _tone(audio: av.AudioStream, make: Make) -> list[av.Packet]:
    seconds = make.tone_s if make.tone_s is not None else float(make.num_frames / Fraction(make.fps))
    wave = 0.4 * np.sin(2 * np.pi * make.tone_hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)
    frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]).astype(np.float32), format="fltp", layout="stereo")
    frame.sample_rate, frame.time_base, frame.pts = RATE_HZ, Fraction(1, RATE_HZ), 0
    return [*audio.encode(frame), *audio.encode(None)]


def sound_in(path: Path) -> np.ndarray:
    """The left channel of a file, at 48 kHz, placed by its times."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="fltp", layout="stereo", rate=RATE_HZ)
        blocks = [
            (frame.time, out.to_ndarray()[0])
            for frame in container.decode(audio=0)
            for out in resampler.resample(frame)
        ]
    length = max(round(time * RATE_HZ) + len(block) for time, block in blocks)
    sound = np.zeros(length, np.float32)
    for time, block in blocks:
        start = round(time * RATE_HZ)
        sound[max(start, 0) : start + len(block)] = block[max(-start, 0) :]
    return sound


def pitch_hz(sound: np.ndarray) -> float:
    """The strongest frequency of a piece of sound; zero for silence."""
    if np.abs(sound).max() < 0.02:
        return 0.0
    return float(np.argmax(np.abs(np.fft.rfft(sound * np.hanning(len(sound))))) * RATE_HZ / len(sound))


def run_real_ffmpeg(*arguments: str | Path) -> None:
    subprocess.run([ffmpeg_binary(), "-v", "error", "-y", *map(str, arguments)], check=True, timeout=60)
