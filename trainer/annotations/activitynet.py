"""ActivityNet Captions, paragraph retrieval: a JSON object by video → a row a video, its sentences joined.

``train.json``, ``val_1.json``: ``{"v_<id>": {"duration": s, "timestamps": [[start, end], …], "sentences": […]}}``.
``train_ids.json``, ``val_ids.json`` list the videos of a split. Files may be named with the ``v_`` or without it.
"""

from __future__ import annotations

import math
from pathlib import Path

from trainer.annotations.media_folder import MediaFolder
from trainer.annotations.parsing import kept_texts, mapping, number, read_json, span_of, strings
from trainer.annotations.rows import Annotations, Lack, Ledger, RetrievalPair


def read_activitynet(captions_json: Path, media: Path, ids_json: Path | None = None) -> Annotations[RetrievalPair]:
    """The videos of `ids_json`, or all, in that file's order; one paragraph each, span 0 to the last full second.

    Raises:
        AnnotationError: a file in another format.
    """
    document = mapping(captions_json, "document", read_json(captions_json))
    listed = strings(ids_json, "document", read_json(ids_json)) if ids_json else list(document)
    by_id = {_bare(key): key for key in document}
    folder, num_blank = MediaFolder(media), 0
    ledger: Ledger[RetrievalPair] = Ledger(captions_json)
    for video_id in dict.fromkeys(_bare(name) for name in listed):
        if video_id not in by_id:
            ledger.lack(Lack.text, video_id)
            continue
        key = by_id[video_id]
        entry = mapping(captions_json, key, document[key], ("duration", "sentences"))
        sentences = strings(captions_json, f"{key}.sentences", entry["sentences"])
        texts, path = kept_texts(sentences), folder.find(video_id, f"v_{video_id}")
        if not texts:
            ledger.lack(Lack.text, video_id)
        elif path is None:
            ledger.lack(Lack.media, video_id)
        else:
            num_blank += len(sentences) - len(texts)
            duration_s = number(captions_json, f"{key}.duration", entry["duration"])
            span = span_of(captions_json, f"{key}.duration", 0, math.ceil(duration_s))
            ledger.add(RetrievalPair(video_id, path, (" ".join(texts),), span))
    return ledger.close(num_blank_texts=num_blank)


def _bare(name: str) -> str:
    return name.removeprefix("v_")
