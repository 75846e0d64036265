"""Bytes of samples' media: ranges of tars, or whole files, of which the last few stay open. Decodes nothing."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO

from gex_pipeline import storage
from gex_pipeline.errors import FileMissingError, FileTooShortError, GexError

if TYPE_CHECKING:
    from trainer.catalog_rows import CatalogSample

_OPEN_TARS = 16


class DamagedMediaError(Exception):
    """The media of one sample cannot be read or decoded; the message says why."""


class MediaReader:
    """Reads ranges of tars; the last few stay open, since neighbouring samples share them. One process's own.

    With `exact`, a stored tar gives nothing but what is asked for, as scattered reads want; else small samples that lie
    behind each other come together.
    """

    def __init__(self, *, exact: bool = False) -> None:
        self._exact = exact
        self._open: OrderedDict[str, tuple[ExitStack, BinaryIO]] = OrderedDict()

    def read(self, sample: CatalogSample) -> bytes:
        """The bytes of a sample's media.

        Raises:
            DamagedMediaError: the sample has none, or its tar is missing or too short.
            GexError: storage refuses, or does not answer.
        """
        if sample.media_uri is None or not sample.media_size_bytes:
            raise DamagedMediaError("it has no video or picture")
        if sample.media_offset_bytes < 0 or sample.media_size_bytes < 0:  # less than nothing would be everything
            place = f"{sample.media_offset_bytes}+{sample.media_size_bytes}"
            raise DamagedMediaError(f"{place} is no range of bytes of {sample.media_uri!r}")
        try:
            stream = self._stream(sample.media_uri)
            stream.seek(sample.media_offset_bytes)
            content = stream.read(sample.media_size_bytes)
        except (FileMissingError, FileTooShortError) as error:
            raise DamagedMediaError(str(error)) from error
        except OSError as error:
            raise GexError(f"{sample.media_uri!r} cannot be read: {error}") from error
        if len(content) != sample.media_size_bytes:
            lacking = sample.media_size_bytes - len(content)
            raise DamagedMediaError(f"{sample.media_uri!r} ends {lacking} bytes before the sample does")
        return content

    def close(self) -> None:
        """Close the tars."""
        while self._open:
            self._open.popitem()[1][0].close()

    def _stream(self, uri: str) -> BinaryIO:
        if uri in self._open:
            self._open.move_to_end(uri)
            return self._open[uri][1]
        while len(self._open) >= _OPEN_TARS:
            self._open.popitem(last=False)[1][0].close()
        stack = ExitStack()
        stream = stack.enter_context(storage.open_read(uri, exact=self._exact))
        self._open[uri] = (stack, stream)
        return stream
