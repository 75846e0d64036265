"""How many samples the index of an MP4 promises: open file in, one number out, a few reads of a few bytes.

libav makes room for every sample before it reads one. A table of one size needs no more bytes for a
thousand million samples than for one, and an edit list repeats all of them. It makes room for what a
table says it holds, too, whatever the length of its box: such a table is refused. Looks at the boxes
wherever libav does, also where no writer puts them, and only counts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from gex_pipeline.errors import Reason, RejectedError

_MAX_BOXES = 1_000_000  # a hostile file of eight-byte boxes must not hold a worker for long
_MAX_DEPTH = 10  # of boxes in boxes, where a whole file has five; libav goes no deeper either
_MAX_EDITS = 10_000  # beyond this it does not matter which of them show something
_TABLES = {b"stts": 8, b"stss": 4, b"ctts": 8, b"stsc": 12, b"stco": 4, b"co64": 8}  # bytes an entry
_SIZES = {b"stsz": 4, b"stz2": 0}  # of samples; the compact form says itself how many bits one takes
_CONTAINERS = frozenset(  # of which libav reads what is in them, wherever they lie
    b"moov trak mdia minf stbl edts moof traf dinf udta tref mvex sinf schi wave ilst".split()
)
_HIDDEN_INDEXES = frozenset([b"free", b"hoov"])  # libav takes one that begins as an index for the index
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


def num_in_index(file: BinaryIO, end: int) -> int | None:
    """Samples of the track that has most, edits counted, and of all fragments; none when the index is compressed.

    Raises:
        RejectedError: undecodable, when a table says that it has more entries than its box has room for, or boxes lie
            in each other without end.
    """
    most = num_in_fragments = 0
    for kind, payload, box_end in _inside(file, 0, end, b"trak", b"cmov", b"trun"):
        if kind == b"cmov":
            return None
        if kind == b"trun":
            num_in_fragments += _number(file, payload + 4)
        else:
            most = max(most, _num_in_track(file, payload, min(box_end, end)))
    return most + num_in_fragments


def _num_in_track(file: BinaryIO, start: int, end: int) -> int:
    count, num_edits, is_raw_sound = 0, 1, False
    wanted = {*_TABLES, *_SIZES, b"elst"}
    for kind, payload, box_end in _inside(file, start, end, *wanted):
        if kind == b"elst":
            num_edits = max(1, _num_edits(file, payload, min(box_end, end)))
            continue
        num_entries = _num_entries(file, kind, payload, min(box_end, end))
        if kind in _SIZES:
            count = max(count, num_entries)
        elif kind == b"stts":  # raw sound has a sample for each of its values, and is indexed by chunks
            is_raw_sound = (num_entries, _number(file, payload + 12)) == (1, 1)
    return 0 if is_raw_sound and _is_sound(file, start, end) else count * num_edits


def _num_entries(file: BinaryIO, kind: bytes, payload: int, end: int) -> int:
    """Entries that a table says it has."""
    head_bytes = 12 if kind in _SIZES else 8
    num_entries = _number(file, payload + head_bytes - 4)
    entry_bits = 8 * (_TABLES | _SIZES)[kind]
    if kind == b"stz2":
        entry_bits = _number(file, payload + 4) & 0xFF
    elif kind == b"stsz" and _number(file, payload + 4):
        entry_bits = 0  # all samples have this size
    room_bytes = end - payload - head_bytes
    if room_bytes < 0 or num_entries * entry_bits > 8 * room_bytes:
        raise RejectedError(
            Reason.undecodable,
            f"its index is damaged: the table {kind.decode()} says it has {num_entries} entries, "
            f"and its box has room for {max(room_bytes, 0)} bytes",
        )
    return num_entries


def _is_sound(file: BinaryIO, start: int, end: int) -> bool:
    for _, payload, _ in _inside(file, start, end, b"hdlr"):
        file.seek(payload + 8)
        return file.read(4) == b"soun"
    return False


def _num_edits(file: BinaryIO, payload: int, end: int) -> int:
    """Edits that show something of the track. Their number is that of the box: libav does not heed what it says."""
    file.seek(payload)
    form = struct.Struct(">QqI" if file.read(8)[:1] == b"\x01" else ">IiI")
    num_edits = max(0, (end - payload - 8) // form.size)
    if num_edits > _MAX_EDITS:
        return num_edits
    return sum(media_time >= 0 for _, media_time, _ in form.iter_unpack(file.read(num_edits * form.size)))


def _inside(file: BinaryIO, start: int, end: int, *wanted: bytes, depth: int = 0) -> Iterator[Box]:
    if depth > _MAX_DEPTH:
        raise RejectedError(Reason.undecodable, f"its index is damaged: {depth} boxes lie in each other")
    for kind, payload, box_end in boxes(file, start, end):
        if kind in wanted:
            yield kind, payload, box_end
        elif kind in _CONTAINERS or (kind in _HIDDEN_INDEXES and _begins_as_index(file, payload)):
            yield from _inside(file, payload, min(box_end, end), *wanted, depth=depth + 1)


def _begins_as_index(file: BinaryIO, payload: int) -> bool:
    file.seek(payload + 4)
    return file.read(4) in (b"mvhd", b"cmov")


def _number(file: BinaryIO, position: int) -> int:
    file.seek(position)
    return int.from_bytes(file.read(4), "big")
