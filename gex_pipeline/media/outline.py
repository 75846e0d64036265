"""What the outermost structure of a file says: path in, a small `Outline` out, without PyAV.

libav opens an MP4 whose index is at the front and whose end is missing, and reports nothing until
the last packets fail to come. The sizes of the outermost boxes tell at once, for a few reads of a
few bytes, and so does the length of the index, before libav makes room for it. Reads ISO media (mp4,
mov), Matroska (mkv, webm) and RIFF (avi); of anything else it says `unknown` and nothing more. Does
not look at packets.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from gex_pipeline.errors import Reason, RejectedError
from gex_pipeline.media.iso_index import boxes, num_in_index

Kind = Literal["iso", "matroska", "riff", "unknown"]

_ISO_BOXES = frozenset(
    [b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"free", b"skip", b"wide", b"uuid", b"meta"]
)
_ISO_HEADS = _ISO_BOXES | {b"pnot", b"udta", b"junk", b"pict", b"prfl", b"ediw"}  # libav takes these for one too
MOST_INDEXED = 10_000_000  # where no recipe says max_frames: days of video, and libav takes 40 bytes for each
_UPRIGHT = (0x10000, 0, 0, 0x10000)


@dataclass(frozen=True)
class Outline:
    """Kind of container, what is missing of it (none: nothing that can be seen from here), and whether it turns."""

    kind: Kind
    missing: str | None
    may_be_turned: bool
    num_indexed: int | None = 0  # samples in the longest index of ISO media; none: it is hidden


def read_outline(path: Path) -> Outline:
    """Read the outermost boxes of the file.

    Raises:
        RejectedError: undecodable, when an ISO index is damaged in a way that says nothing of its size.
    """
    with path.open("rb", buffering=0) as file:
        return outline_of(file)


def outline_of(file: BinaryIO) -> Outline:
    """The same of an open file, which is left somewhere in it."""
    num_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(16)
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return Outline("matroska", _matroska_missing(file, num_bytes), True)
    if head[:4] == b"RIFF":
        declared_bytes = struct.unpack("<I", head[4:8])[0] + 8
        missing = _short("RIFF", declared_bytes, num_bytes) if declared_bytes > 8 else None
        return Outline("riff", missing, False)
    if any(kind in _ISO_HEADS for kind, _, _ in boxes(file, 0, num_bytes)):  # libav passes over others before them
        return _iso_outline(file, num_bytes)
    return Outline("unknown", None, True)


def check_index(outline: Outline, max_frames: int = MOST_INDEXED) -> None:
    """A few bytes of index can promise a thousand million frames, and libav makes room for all of them.

    Raises:
        RejectedError: media_too_large, or not_a_video where nothing is known of the index.
    """
    if outline.num_indexed is None:
        raise RejectedError(Reason.not_a_video, "its index is compressed (cmov), so that nothing is known of its size")
    if outline.num_indexed > max_frames:
        raise RejectedError(
            Reason.media_too_large,
            f"its index promises {outline.num_indexed} frames or packets, more than max_frames = {max_frames}",
        )


def _short(name: str, declared_end: int, num_bytes: int) -> str | None:
    if declared_end <= num_bytes:
        return None
    return f"{name} should end at byte {declared_end}, the file ends at byte {num_bytes}"


def _iso_outline(file: BinaryIO, num_bytes: int) -> Outline:
    seen: set[bytes] = set()
    missing: str | None = None
    turned = False
    whole_bytes = 0
    for kind, payload, end in boxes(file, 0, num_bytes):
        whole_bytes = end if end <= num_bytes else whole_bytes
        if kind not in _ISO_BOXES:
            if end > num_bytes:
                break  # bytes behind the last box are no part of the video
            continue
        seen.add(kind)
        missing = _short(kind.decode(), end, num_bytes)
        if kind == b"moov" and not missing:
            turned = _is_turned(file, payload, end)
    if missing is None and b"moov" not in seen:
        missing = f"no moov box (the index); found {', '.join(sorted(kind.decode() for kind in seen))}"
    return Outline("iso", missing, turned, num_in_index(file, whole_bytes))


def _is_turned(file: BinaryIO, start: int, end: int) -> bool:
    """Whether any track has a matrix other than identity or nothing (the libav bindings do not say)."""
    for kind, payload, box_end in boxes(file, start, end):
        if kind != b"trak":
            continue
        for child, child_payload, _ in boxes(file, payload, box_end):
            if child == b"tkhd":
                file.seek(child_payload)
                header = file.read(104)
                offset = 52 if header[:1] == b"\x01" else 40
                if len(header) < offset + 20:
                    return True
                a, b, _, c, d = struct.unpack(">5i", header[offset : offset + 20])
                if (a, b, c, d) not in (_UPRIGHT, (0, 0, 0, 0)):
                    return True
                break
    return False


def _vint(file: BinaryIO) -> int | None:
    """Read one EBML length; none when it says `unknown` or cannot be read."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    bits = 7 * length
    value = int.from_bytes(first + rest, "big") & ((1 << bits) - 1)
    return None if value == (1 << bits) - 1 or len(rest) < length - 1 else value


def _matroska_missing(file: BinaryIO, num_bytes: int) -> str | None:
    file.seek(4)
    header_bytes = _vint(file)
    if header_bytes is None or header_bytes > num_bytes:  # further than a disk can seek, too
        return "the EBML header is cut"
    file.seek(header_bytes, 1)
    if file.read(4) != b"\x18\x53\x80\x67":
        return f"no segment; the file has {num_bytes} bytes"
    segment_bytes = _vint(file)  # a live stream does not know it
    return None if segment_bytes is None else _short("segment", file.tell() + segment_bytes, num_bytes)
