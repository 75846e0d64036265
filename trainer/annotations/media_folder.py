"""A folder of media files, found by id: the file name without its media ending. Opens none of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from trainer.annotations.parsing import AnnotationError

VIDEO_ENDINGS = frozenset(
    (".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv")
)  # lower case, as the next
IMAGE_ENDINGS = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".webp"))


class MediaFolder:
    """The videos under a folder at any depth, links followed.

    Only a known media ending is taken off a name, since ids hold dots themselves.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_id: dict[str, list[Path]] = {}
        for path in files_under(folder):
            if path.suffix.lower() in VIDEO_ENDINGS:
                self._by_id.setdefault(path.name[: -len(path.suffix)], []).append(path)

    def find(self, *names: str) -> Path | None:
        """The file with the first of the names that has one, or None.

        Raises:
            AnnotationError: two files have that name.
        """
        for name in names:
            found = self._by_id.get(name, [])
            if len(found) > 1:
                raise AnnotationError(f"{name!r} has {len(found)} files, {found[0]} and {found[1]}; keep one of them")
            if found:
                return found[0]
        return None


def files_under(folder: Path) -> Iterator[Path]:
    """Files at any depth in the order of their names, but hidden ones; each folder once, however it is linked.

    Raises:
        AnnotationError: there is no such folder, or a part of it cannot be listed.
    """
    if not folder.is_dir():
        raise AnnotationError(f"no folder {folder}; expected the one with the media files")
    seen: set[Path] = set()
    for root, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        place = Path(root).resolve()
        if place in seen:
            folders.clear()
            continue
        seen.add(place)
        folders.sort()
        yield from (Path(root, name) for name in sorted(names) if not name.startswith("."))


def _refuse(error: OSError) -> None:
    raise AnnotationError(f"{error.filename} cannot be listed: {error.strerror}") from error
