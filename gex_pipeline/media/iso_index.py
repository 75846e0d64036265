"""How many samples the index of an MP4 promises: open file in, one number out, a few reads of a few bytes.

libav makes room for every sample before it reads one. A table of one size needs no more bytes for a
thousand million samples than for one, and an edit list repeats all of them. Looks at the boxes where
writers put them, and only counts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

_MAX_BOXES = 1_000_000  # a hostile file of eight-byte boxes must not hold a worker for long
_MAX_EDITS = 10_000  # beyond this it does not matter which of them show something
Box = tuple[bytes, int, int]  # type, first payload byte, end


def boxes(file: BinaryIO, start: int, end: int) -> Iterator[Box]:
    """Yield each box; a box may say that it ends after `end`."""
    for _ in range(_MAX_BOXES):
        if start + 8 > end:
            return
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            return
        size, kind, payload = int.from_bytes(head[:4], "big"), head[4:8], start + 8
        if size == 1 and len(head) == 16:
            size, payload = int.from_bytes(head[8:16], "big"), start + 16
        elif size == 0:
            size = end - start
        if size < payload - start:
            return
        yield kind, payload, start + size
        start += size


def num_in_index(file: BinaryIO, start: int, end: int) -> int | None:
    """Samples of the track of a moov box that has most, edits counted; none when the index is compressed."""
    most = 0
    for kind, payload, box_end in boxes(file, start, end):
        if kind == b"cmov":
            return None
        if kind == b"trak":
            most = max(most, _num_in_track(file, payload, min(box_end, end)))
    return most


def num_in_fragment(file: BinaryIO, start: int, end: int) -> int:
    """Samples of all runs of a moof box."""
    runs = _inside(file, start, end, (b"traf",), b"trun")
    return sum(_number(file, payload + 4) for _, payload, _ in runs)


def _num_in_track(file: BinaryIO, start: int, end: int) -> int:
    count, num_edits, is_raw_sound = 0, 1, False
    wanted = {b"stsz", b"stz2", b"stts", b"elst"}
    for kind, payload, box_end in _inside(file, start, end, (b"mdia", b"minf", b"stbl", b"edts"), *wanted):
        if kind == b"elst":
            num_edits = max(1, _num_edits(file, payload, min(box_end, end)))
        elif kind == b"stts":  # raw sound has a sample for each of its values, and is indexed by chunks
            is_raw_sound = (_number(file, payload + 4), _number(file, payload + 12)) == (1, 1)
        else:
            count = max(count, _number(file, payload + 8))
    return 0 if is_raw_sound and _is_sound(file, start, end) else count * num_edits


def _is_sound(file: BinaryIO, start: int, end: int) -> bool:
    for _, payload, _ in _inside(file, start, end, (b"mdia",), b"hdlr"):
        file.seek(payload + 8)
        return file.read(4) == b"soun"
    return False


def _num_edits(file: BinaryIO, payload: int, end: int) -> int:
    """Edits that show something of the track."""
    file.seek(payload)
    head = file.read(8)
    form = struct.Struct(">QqI" if head[:1] == b"\x01" else ">IiI")
    num_edits = min(int.from_bytes(head[4:8], "big"), (end - payload - 8) // form.size)
    if num_edits > _MAX_EDITS:
        return num_edits
    return sum(media_time >= 0 for _, media_time, _ in form.iter_unpack(file.read(num_edits * form.size)))


def _inside(file: BinaryIO, start: int, end: int, through: tuple[bytes, ...], *wanted: bytes) -> Iterator[Box]:
    for kind, payload, box_end in boxes(file, start, end):
        if kind in wanted:
            yield kind, payload, box_end
        elif kind in through:
            yield from _inside(file, payload, min(box_end, end), through, *wanted)


def _number(file: BinaryIO, position: int) -> int:
    file.seek(position)
    return int.from_bytes(file.read(4), "big")
