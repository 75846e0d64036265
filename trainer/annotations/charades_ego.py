"""Charades-Ego: a CSV of videos with timed actions, and the class list → a row a video, or a row an action.

``CharadesEgo_v1_{train,test}_only1st.csv``: a header with at least id and actions; actions are
``c092 11.90 21.20;c147 0.00 12.60`` or nothing. ``Charades_v1_classes.txt``: ``c000 Holding some clothes``.
"""

from __future__ import annotations

from pathlib import Path

from trainer.annotations.media_folder import MediaFolder
from trainer.annotations.parsing import csv_table, lines, number, wrong
from trainer.annotations.rows import Annotations, LabelledVideo, Lack, Ledger, Span


def read_charades_ego(
    videos_csv: Path, media: Path, classes_txt: Path, each_action: bool = False
) -> Annotations[LabelledVideo]:
    """A row a video with all its classes, without span; with `each_action` a row an action with its span.

    A video without actions is a row without labels, or no row with `each_action`.

    Raises:
        AnnotationError: a file in another format, or a class that is not in the list.
    """
    class_names = _class_names(classes_txt)
    folder = MediaFolder(media)
    ledger: Ledger[LabelledVideo] = Ledger(videos_csv)
    for line, record in csv_table(videos_csv, ("id", "actions")):
        video_id = record["id"].strip()
        actions = _actions(videos_csv, line, record["actions"], len(class_names))
        labels = sorted({label for label, _, _ in actions})
        path = folder.find(video_id)
        if path is None:
            for _ in actions if each_action else [None]:
                ledger.lack(Lack.media, video_id)
        elif not each_action:
            ledger.add(LabelledVideo(video_id, path, tuple(labels)))
        else:
            for label, start_s, end_s in actions:
                if 0 <= start_s <= end_s:
                    ledger.add(LabelledVideo(video_id, path, (label,), Span(start_s, end_s)))
                else:
                    ledger.lack(Lack.span, f"{video_id} c{label:03d}")
    return ledger.close(class_names)


def _class_names(path: Path) -> tuple[str, ...]:
    names: list[str] = []
    for line, text in lines(path):
        key, _, name = text.strip().partition(" ")
        if key != f"c{len(names):03d}" or not name.strip():
            raise wrong(path, line, repr(text[:80]), f"c{len(names):03d} and the name of the class")
        names.append(name.strip())
    return tuple(names)


def _actions(path: Path, line: int, text: str, num_classes: int) -> list[tuple[int, float, float]]:
    """(class, start, end) of each action of a video; times as they stand."""
    actions: list[tuple[int, float, float]] = []
    for action in text.split(";"):
        if not action.strip():
            continue
        parts = action.split()
        digits = parts[0].removeprefix("c")
        if len(parts) != 3 or not (digits.isascii() and digits.isdigit()) or int(digits) >= num_classes:
            raise wrong(
                path, line, f"the action {action[:80]!r}", f"a class c000 to c{num_classes - 1:03d}, start, end"
            )
        actions.append((int(digits), number(path, line, parts[1]), number(path, line, parts[2])))
    return actions
