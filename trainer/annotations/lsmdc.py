"""LSMDC: tab-separated lines without a header → a row a clip with its captions.

``LSMDC16_annos_training.csv``, ``LSMDC16_annos_val.csv``, ``LSMDC16_challenge_1000_publictect.csv`` (so spelt): clip
id, start and end aligned, start and end extracted, sentence. A clip id holds dots and, in the training file, stands
on several lines. The media files are the clips, in a folder a movie; the times in the file are the movie's, so there
is no span.
"""

from __future__ import annotations

from pathlib import Path

from trainer.annotations.media_folder import MediaFolder
from trainer.annotations.msrvtt import pairs
from trainer.annotations.parsing import lines, wrong
from trainer.annotations.rows import Annotations, RetrievalPair


def read_lsmdc(captions_tsv: Path, media: Path) -> Annotations[RetrievalPair]:
    """The clips in the order of their first line.

    Raises:
        AnnotationError: a line that has not six fields.
    """
    captions: dict[str, list[str]] = {}
    for line, text in lines(captions_tsv):
        fields = text.split("\t")
        if len(fields) != 6 or not fields[0].strip():
            raise wrong(captions_tsv, line, f"{len(fields)} fields", "clip id, four times, sentence between tabs")
        captions.setdefault(fields[0].strip(), []).append(fields[5])
    return pairs(captions_tsv, captions, MediaFolder(media))
