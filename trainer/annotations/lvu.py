"""LVU, the tasks with classes: space-separated lines under a header → a row a video with its class.

``lvu_1.0/<task>/{train,val,test}.csv``: class_id class_name youtube_id imdb_id. Class names are gathered from all of
the three that lie side by side, so that they are the same for every split, and numbered in the order of class_id, whose
numbers have gaps in the files as they are published. Rows are whole videos; whoever trains or measures may cut them
into spans (`trainer.annotation_catalog.spans_of`). The regression tasks, view_count and like_ratio, are not read.
"""

from __future__ import annotations

from pathlib import Path

from trainer.annotations.media_folder import MediaFolder
from trainer.annotations.parsing import lines, whole, wrong
from trainer.annotations.rows import Annotations, LabelledVideo, Lack, Ledger

_SPLITS = ("train.csv", "val.csv", "test.csv")


def read_lvu(split_csv: Path, media: Path) -> Annotations[LabelledVideo]:
    """The videos of one split, in the file's order.

    Raises:
        AnnotationError: a file in another format, a class with two names, or ids with a gap where the file of a split
            is not there.
    """
    entries = _entries(split_csv)
    names: dict[int, str] = {}
    splits = [split_csv.with_name(name) for name in _SPLITS]
    for path in [split_csv, *(path for path in splits if path.exists())]:
        for line, label, name, _ in _entries(path):
            if names.setdefault(label, name) != name:
                raise wrong(path, line, f"class {label} named {name}", f"{names[label]}, as before")
    unnamed = set(range(max(names, default=0))) - names.keys()
    if unnamed and not all(path.exists() for path in splits):  # it may stand in the file that is not there
        raise wrong(split_csv, "all lines", f"no class {min(unnamed)}", "train.csv, val.csv and test.csv side by side")
    index = {label: position for position, label in enumerate(sorted(names))}
    folder = MediaFolder(media)
    ledger: Ledger[LabelledVideo] = Ledger(split_csv)
    for _, label, _, video_id in entries:
        found = folder.find(video_id)
        if found is None:
            ledger.lack(Lack.media, video_id)
        else:
            ledger.add(LabelledVideo(video_id, found, (index[label],)))
    return ledger.close(tuple(names[label] for label in sorted(names)))


def _entries(path: Path) -> list[tuple[int, int, str, str]]:
    """(line, class id, class name, video id) of each line after the header."""
    entries: list[tuple[int, int, str, str]] = []
    header: list[str] = []
    expected = "class_id class_name youtube_id imdb_id"
    for line, text in lines(path):
        fields = text.split()
        if not header:
            header = fields
            if len(header) != 4 or header[0] != "class_id":
                raise wrong(path, line, f"the header {text[:80]!r}", f"{expected!r}; regression tasks are not read")
        elif len(fields) < 4:
            raise wrong(path, line, f"{len(fields)} fields", expected)
        else:
            entries.append((line, whole(path, line, fields[0]), " ".join(fields[1:-2]), fields[-2]))
    if not header:
        raise wrong(path, 1, "an empty file", f"the header {expected!r}")
    return entries
