"""ImageNet-style folders, a folder a class with images or videos in it → a row a file.

Classes are the folders in the order of their names, empty ones too. ``names_txt`` gives folders names to read, a line
each: the folder, a space or tab, the name (``n01440764 tench``).
"""

from __future__ import annotations

from pathlib import Path

from trainer.annotations.media_folder import IMAGE_ENDINGS, VIDEO_ENDINGS, files_under
from trainer.annotations.parsing import AnnotationError, lines, wrong
from trainer.annotations.rows import Annotations, LabelledVideo, Lack, Ledger


def read_class_folders(folder: Path, names_txt: Path | None = None) -> Annotations[LabelledVideo]:
    """Every file of every class; ids are ``<class folder>/<path below it>``. A file that is no media is lacking.

    Raises:
        AnnotationError: no class folder, or one without a name in `names_txt`.
    """
    if not folder.is_dir():
        raise AnnotationError(f"no folder {folder}; expected one with a folder a class")
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise AnnotationError(f"{folder} holds no folder; expected one a class")
    names = _names(names_txt) if names_txt else {name: name for name in classes}
    unnamed = [name for name in classes if name not in names]
    if unnamed and names_txt:
        raise wrong(names_txt, "all lines", f"no name for the folder {unnamed[0]}", "one for each class folder")
    ledger: Ledger[LabelledVideo] = Ledger(folder)
    for label, name in enumerate(classes):
        for path in files_under(folder / name):
            file_id = path.relative_to(folder).as_posix()
            if path.suffix.lower() in IMAGE_ENDINGS | VIDEO_ENDINGS:
                ledger.add(LabelledVideo(file_id, path, (label,)))
            else:
                ledger.lack(Lack.media, file_id)
    return ledger.close(tuple(names[name] for name in classes))


def _names(path: Path) -> dict[str, str]:
    names: dict[str, str] = {}
    for line, text in lines(path):
        parts = text.strip().split(maxsplit=1)
        if len(parts) != 2 or parts[0] in names:
            raise wrong(path, line, repr(text[:80]), "a folder and its name, each folder once")
        names[parts[0]] = parts[1]
    return names
