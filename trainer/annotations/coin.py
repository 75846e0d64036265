"""COIN, task recognition: ``COIN.json`` → a row a video with its task, whole or only the part that shows it.

``{"database": {<id>: {"class", "recipe_type", "subset", "start", "end", …}}}``. The subset that is tested on is
"testing" in the file and "validation" in its readme; both are taken. Classes are numbered in the order of
recipe_type over the whole file, so the subsets agree.

Paper: GEXIA §4.3 follows LF-VILA, which samples its frames from the whole file and reads neither start nor end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from trainer.annotations.media_folder import MediaFolder
from trainer.annotations.parsing import mapping, read_json, span_of, whole, wrong
from trainer.annotations.rows import Annotations, LabelledVideo, Lack, Ledger

_SUBSETS = {"training": "training", "testing": "testing", "validation": "testing"}
_KEYS = ("class", "recipe_type", "subset", "start", "end")


def read_coin(
    database_json: Path, media: Path, subset: Literal["training", "testing", "validation"], *, trim: bool = False
) -> Annotations[LabelledVideo]:
    """The videos of a subset, in the file's order; with `trim` only the part of each that shows its task.

    Raises:
        AnnotationError: a file in another format, or a recipe_type with two names.
    """
    document = mapping(database_json, "document", read_json(database_json), ("database",))
    database = mapping(database_json, "database", document["database"])
    entries = {video_id: mapping(database_json, video_id, entry, _KEYS) for video_id, entry in database.items()}
    names = _class_names(database_json, entries)
    index = {recipe_type: position for position, recipe_type in enumerate(sorted(names))}
    folder = MediaFolder(media)
    ledger: Ledger[LabelledVideo] = Ledger(database_json)
    for video_id, entry in entries.items():
        if entry["subset"] not in _SUBSETS:
            raise wrong(database_json, video_id, f"subset {entry['subset']!r}", ", ".join(_SUBSETS))
        if _SUBSETS[entry["subset"]] != _SUBSETS[subset]:
            continue
        path = folder.find(video_id)
        if path is None:
            ledger.lack(Lack.media, video_id)
        else:
            span = span_of(database_json, video_id, entry["start"], entry["end"])
            ledger.add(LabelledVideo(video_id, path, (index[int(entry["recipe_type"])],), span if trim else None))
    return ledger.close(tuple(names[recipe_type] for recipe_type in sorted(names)))


def _class_names(path: Path, entries: dict[str, dict[str, Any]]) -> dict[int, str]:
    names: dict[int, str] = {}
    for video_id, entry in entries.items():
        recipe_type, name = whole(path, video_id, entry["recipe_type"]), str(entry["class"])
        if names.setdefault(recipe_type, name) != name:
            raise wrong(path, video_id, f"class {name} for recipe_type {recipe_type}", names[recipe_type])
    return names
