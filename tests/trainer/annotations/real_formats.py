"""Parts of annotation files as they really are, and a function that writes one."""

from __future__ import annotations

import json
from pathlib import Path

LVU_HEADER = "class_id class_name youtube_id imdb_id\n"
CHARADES_CLASSES = "c000 Holding some clothes\nc001 Putting clothes somewhere\nc002 Taking some clothes\n"
COIN_ENTRY = {
    "duration": 131.0309,
    "class": "ReplaceCDDriveWithSSD",
    "video_url": "https://www.youtube.com/embed/LtRSn-ntcLY",
    "start": 56.640895694775196,
    "annotation": [{"id": "212", "segment": [60.0, 69.0], "label": "take out the laptop CD drive"}],
    "subset": "training",
    "end": 85.714362947023,
    "recipe_type": 131,
}


def written(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_bytes(text.encode("utf-8"))
    return path
