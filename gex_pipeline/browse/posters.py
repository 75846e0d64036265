"""Small pictures of samples, made when they are asked for: an id in, a JPEG out; the last ones are kept.

A sample of which none can be made has a sentence that says why, and is not tried again while that is kept.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from gex_pipeline.browse.index import Index, media_kind
from gex_pipeline.browse.media import Place, frame_places, opened, place_of
from gex_pipeline.errors import GexError, RejectedError, TransientError

if TYPE_CHECKING:
    from PIL import Image

_HEIGHT_PX = 216
_KEPT_BYTES = 64_000_000
_QUALITY = 80


class NoPosterError(GexError):
    """There is no picture of this sample; the message says why."""


class Posters:
    """Makes posters and keeps the last ones, up to a number of bytes. For any number of threads."""

    def __init__(self, index: Index, kept_bytes: int = _KEPT_BYTES) -> None:
        self._index = index
        self._kept: OrderedDict[int, bytes | str] = OrderedDict()
        self._kept_bytes = kept_bytes
        self._num_bytes = 0
        self._lock = threading.Lock()

    def poster(self, sample_id: int) -> bytes:
        """The JPEG of one sample.

        Raises:
            NoPosterError: none can be made.
            TransientError: storage failed in a way that may pass.
        """
        with self._lock:
            found = self._kept.get(sample_id)
            if found is not None:
                self._kept.move_to_end(sample_id)
        if found is None:
            found = self._make(sample_id)
            self._keep(sample_id, found)
        if isinstance(found, str):
            raise NoPosterError(found)
        return found

    def _make(self, sample_id: int) -> bytes | str:
        with self._index.session() as database:
            row = self._index.row(database, sample_id)
        try:
            if media_kind(row["media_extension"]) == "frames":
                places = frame_places(self._index, row)
                return _thumbnail(places[len(places) // 2])
            place = place_of(self._index, row)
            return _thumbnail(place) if media_kind(place.extension) == "image" else _frame(place, row)
        except TransientError:
            raise
        except (GexError, RejectedError) as error:
            return str(error)

    def _keep(self, sample_id: int, content: bytes | str) -> None:
        with self._lock:
            before = self._kept.pop(sample_id, b"")
            self._kept[sample_id] = content
            self._num_bytes += len(content) - len(before)
            while self._num_bytes > self._kept_bytes and len(self._kept) > 1:
                _, gone = self._kept.popitem(last=False)
                self._num_bytes -= len(gone)


def _frame(place: Place, row: dict[str, Any]) -> bytes:
    """A frame out of the middle of the first segment."""
    from gex_pipeline.media.poster import poster_jpeg

    segments = row["segments"] or ()
    span = (segments[0]["offset_s"], segments[0]["duration_s"]) if segments else (0.0, row["duration_s"] or 0.0)
    with opened(place) as stream:
        return poster_jpeg(stream, span[0] + span[1] / 2, _HEIGHT_PX)


def _thumbnail(place: Place) -> bytes:
    """A picture, smaller.

    Raises:
        NoPosterError: it cannot be read.
    """
    from gex_pipeline.media.sampling import PICTURE_ERRORS, opened_picture

    buffer = io.BytesIO()
    with opened(place) as stream:
        try:
            with opened_picture(stream) as picture:
                picture.draft("RGB", (4 * _HEIGHT_PX, _HEIGHT_PX))
                upright = _upright(picture).convert("RGB")
            upright.thumbnail((4 * _HEIGHT_PX, _HEIGHT_PX))
            upright.save(buffer, "JPEG", quality=_QUALITY)
        except PICTURE_ERRORS as error:
            raise NoPosterError(f"its picture cannot be read: {type(error).__name__}") from error
    return buffer.getvalue()


def _upright(picture: Image.Image) -> Image.Image:
    """A picture turned as its EXIF says. Pillow's own way writes the EXIF anew, which fails where it is damaged."""
    from PIL import ExifTags, Image

    turns = Image.Transpose
    upright_by = {
        **{2: turns.FLIP_LEFT_RIGHT, 3: turns.ROTATE_180, 4: turns.FLIP_TOP_BOTTOM, 5: turns.TRANSPOSE},
        **{6: turns.ROTATE_270, 7: turns.TRANSVERSE, 8: turns.ROTATE_90},
    }
    turn = upright_by.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    return picture if turn is None else picture.transpose(turn)
