"""The contract of a shard: tar members, keys, receipts, the manifest. Light imports only.

A shard is a plain WebDataset tar (``{key}.mp4``, ``{key}.txt``, ``{key}.json``) that any reader opens. In place of a
video, or behind it, may stand a run of frames: ``{key}.f000.jpg``, ``{key}.f001.jpg``, ..., read by one range that
begins with the first one's header and ends with the last one's padding.
Beside it lies its receipt, a Parquet file with a row a sample and the tar's digest in its metadata;
the receipt is written last, so a shard without one does not exist. ``dataset.json`` names the shards
that are published; nothing else does.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from gex_pipeline.errors import GexError

MANIFEST_NAME = "dataset.json"
FORMAT_VERSION = 1
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
FRAMES_EXTENSION = "frames"  # what a receipt calls media that is a run of frames
_KEY = re.compile(r"[0-9a-f]{32}")
_FRAME = re.compile(r"f(\d{3,})\.jpg")  # the extension of a frame, as WebDataset sees it
_FRAME_NAME = re.compile(r"(?:.*/)?[^./]+\.f\d{3,}\.jpg")
_BLOCK_BYTES = 512
_COPIED_BYTES = 4 << 20  # at a time: out of an object store each piece is a request


def is_key(text: str) -> bool:
    """Whether `text` is a sample's key: 32 hex digits, so no dot, colon or slash can be in it."""
    return _KEY.fullmatch(text) is not None


def make_key(granularity: str, parent_ids: list[str]) -> str:
    """The key of the sample that `granularity` makes out of these parents, in this order.

    ``sql/plan_shards.sql`` computes the same.
    """
    return hashlib.sha256("\n".join([granularity, *parent_ids]).encode()).hexdigest()[:32]


def text_digest(text: str) -> str:
    """SHA-256 of a text; a summary carries the digest of the long text it was made from."""
    return hashlib.sha256(text.encode()).hexdigest()


def shard_name(granularity: str, shard: int) -> str:
    """``LVLT-000012``: the name of a shard's tar and receipt without their endings."""
    return f"{granularity}-{shard:06d}"


def frame_extension(number: int) -> str:
    """``f007.jpg``: the extension of one of a sample's frames."""
    return f"f{number:03d}.jpg"


def frame_number(extension: str) -> int | None:
    """Which frame of its sample a member with this extension is; None where it is none."""
    match = _FRAME.fullmatch(extension)
    return int(match[1]) if match else None


@dataclass(frozen=True)
class MemberSpan:
    """Where a member's bytes lie in its tar."""

    offset_bytes: int
    size_bytes: int

    @property
    def whole(self) -> MemberSpan:
        """The same member with the header before it and the padding behind."""
        padded_bytes = -(-self.size_bytes // _BLOCK_BYTES) * _BLOCK_BYTES
        return MemberSpan(self.offset_bytes - _BLOCK_BYTES, _BLOCK_BYTES + padded_bytes)


class DamagedRunError(GexError):
    """A range that should hold a run of frames and does not."""


def iter_run(stream: BinaryIO, size_bytes: int) -> Iterator[MemberSpan]:
    """The frames of the run that begins where `stream` stands, as places within the run; reads headers only.

    Raises:
        DamagedRunError: it is no whole run of frames.
    """
    begin, at = stream.tell(), 0
    while at < size_bytes:
        stream.seek(begin + at)
        try:
            header = tarfile.TarInfo.frombuf(stream.read(_BLOCK_BYTES), "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise DamagedRunError(f"the run of frames has a damaged header at byte {at}: {error}") from error
        span = MemberSpan(at + _BLOCK_BYTES, header.size)
        at += span.whole.size_bytes
        if not _FRAME_NAME.fullmatch(header.name) or header.size < 0 or at > size_bytes:
            raise DamagedRunError(f"the run of frames holds {header.name!r}, which is no whole frame of it")
        yield span


def split_run(content: bytes) -> list[bytes]:
    """The JPEG files in a run of frames.

    Raises:
        DamagedRunError: it is no whole run of frames.
    """
    spans = iter_run(io.BytesIO(content), len(content))
    return [content[span.offset_bytes : span.offset_bytes + span.size_bytes] for span in spans]


class _HashingFile(io.RawIOBase):
    """Passes writes on and digests them, so that a shard is read once less."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self.digest = hashlib.sha256()
        self.num_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._out.write(data)
        self.digest.update(data)
        self.num_bytes += len(data)
        return len(data)

    def tell(self) -> int:
        return self.num_bytes


class ShardWriter:
    """Writes one reproducible tar: fixed time, owner and mode, members in the order given, no seeking.

    Use as a context manager; ``sha256`` and ``num_bytes`` are set when it closes.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._hashing = _HashingFile(self._file)
        self._tar = tarfile.TarFile(
            fileobj=self._hashing, mode="w", format=tarfile.USTAR_FORMAT, copybufsize=_COPIED_BYTES
        )
        self.sha256 = ""
        self.num_bytes = 0

    def add_file(self, name: str, path: Path) -> MemberSpan:
        """Add a file's bytes, streamed."""
        with path.open("rb") as source:
            return self._add(name, source, path.stat().st_size)

    def add_bytes(self, name: str, content: bytes) -> MemberSpan:
        """Add a small member."""
        return self._add(name, io.BytesIO(content), len(content))

    def add_stream(self, name: str, source: BinaryIO, size_bytes: int) -> MemberSpan:
        """Add the next `size_bytes` of an open stream."""
        return self._add(name, source, size_bytes)

    def add_run(self, key: str, pictures: Iterable[bytes]) -> MemberSpan:
        """Add a sample's frames; the place of the run, from the first one's header to the last one's padding."""
        begin_bytes = self._tar.offset
        for number, picture in enumerate(pictures):
            self.add_bytes(f"{key}.{frame_extension(number)}", picture)
        return MemberSpan(begin_bytes, self._tar.offset - begin_bytes)

    def _add(self, name: str, source: BinaryIO, size_bytes: int) -> MemberSpan:
        member = tarfile.TarInfo(name)
        member.size = size_bytes
        member.mode = 0o644
        offset_bytes = self._tar.offset + _BLOCK_BYTES  # short USTAR names: exactly one header block
        self._tar.addfile(member, source)
        return MemberSpan(offset_bytes, size_bytes)

    def close(self) -> None:
        """Finish the tar and the digest."""
        self._tar.close()
        self._file.close()
        self.sha256 = self._hashing.digest.hexdigest()
        self.num_bytes = self._hashing.num_bytes

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Segment:
    """One source clip inside a sample's video.

    `offset_s` and `duration_s` are positions in this video; `start_s` and `end_s`, half-open, in the
    source video; `text` is the clip's caption.
    """

    clip_id: str
    source_id: str
    offset_s: float
    duration_s: float
    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class Frames:
    """What a sample's frames are: how they were asked for, and the size that they have."""

    num: int
    short_side_px: int
    quality: int
    width_px: int
    height_px: int


@dataclass(frozen=True)
class SampleRecord:
    """One published sample: what its receipt row and its ``{key}.json`` say."""

    key: str
    granularity: str
    source_id: str
    parents: tuple[str, ...]
    segments: tuple[Segment, ...]
    text: str
    duration_s: float
    width_px: int
    height_px: int
    fps: float
    codec: str
    made_by: str  # "copy", "encode", "frame", "embed" or "reference": the path the media took
    source_text_digest: str | None = None  # for a summary: digest of the long text it was made from
    scores: dict[str, float] = field(default_factory=dict)
    media_extension: str = "mp4"  # "frames" where a run of frames stands in the video's place
    media_uri: str | None = None  # for referenced media: shard, relative to the output, it lies in
    media_offset_bytes: int | None = None
    media_size_bytes: int | None = None
    frames: Frames | None = None  # in the video's place or beside it
    frames_offset_bytes: int | None = None  # of frames beside a video: where their run begins in the same shard
    frames_size_bytes: int | None = None

    @property
    def num_words(self) -> int:
        """Words of the text, counted by white space."""
        return len(self.text.split())

    def to_json(self, recipe_hash: str) -> bytes:
        """The ``{key}.json`` member: sorted keys, so that equal samples have equal bytes."""
        content: dict[str, Any] = {
            "key": self.key,
            "granularity": self.granularity,
            "source_id": self.source_id,
            "parents": list(self.parents),
            "segments": [vars(segment) for segment in self.segments],
            "duration_s": self.duration_s,
            "width_px": self.width_px,
            "height_px": self.height_px,
            "fps": self.fps,
            "codec": self.codec,
            "made_by": self.made_by,
            "num_words": self.num_words,
            "text_digest": text_digest(self.text),
            "scores": self.scores,
            "recipe_hash": recipe_hash,
        }
        if self.source_text_digest is not None:
            content["source_text_digest"] = self.source_text_digest
        if self.frames is not None:
            content["frames"] = vars(self.frames)
        if self.media_uri is not None:
            content["video"] = {
                "shard": self.media_uri,
                "offset_bytes": self.media_offset_bytes,
                "size_bytes": self.media_size_bytes,
            }
            if self.frames_offset_bytes is not None:
                content["video"]["frames_offset_bytes"] = self.frames_offset_bytes
                content["video"]["frames_size_bytes"] = self.frames_size_bytes
        return json.dumps(content, sort_keys=True, ensure_ascii=False, indent=1).encode() + b"\n"


@dataclass(frozen=True)
class Loss:
    """One parent that did not get into the output: a row of ``tables/rejects*.parquet``."""

    granularity: str
    stage: str
    state: str
    reason: str
    detail: str
    id: str  # clip id or key of what was lost
    source_id: str
    row: str  # the input row as JSON


@dataclass(frozen=True)
class Receipt:
    """What a finished shard holds; the metadata of its receipt file."""

    granularity: str
    shard: int
    plan_digest: str
    recipe_hash: str
    num_samples: int
    num_bytes: int
    sha256: str

    @property
    def name(self) -> str:
        """``LVLT-000012``."""
        return shard_name(self.granularity, self.shard)
