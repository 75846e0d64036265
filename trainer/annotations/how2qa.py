"""How2QA: comma-separated lines **without a header** → a row a question with its four candidates.

``how2QA_{train,val,test_public}_release.csv``: video id, ``[start:end]``, three wrong answers, the question, the right
answer. Times are the whole video's. The media are whole videos, or clips of 60 s named ``<id>_<start>_<start+60>``:
then the clip in which the span starts is taken and the span is given in the clip's time.
"""

from __future__ import annotations

import re
from pathlib import Path

from trainer.annotations.media_folder import MediaFolder
from trainer.annotations.parsing import csv_rows, span_of, wrong
from trainer.annotations.rows import Annotations, Lack, Ledger, Question, Span

_SPAN = re.compile(r"\[\s*(\d+(?:\.\d*)?)\s*:\s*(\d+(?:\.\d*)?)\s*\]")
_CLIP_S = 60


def read_how2qa(questions_csv: Path, media: Path) -> Annotations[Question]:
    """The questions in the file's order; the right answer is the last candidate, as in the file.

    Raises:
        AnnotationError: a line that is no question, a header among them.
    """
    folder = MediaFolder(media)
    ledger: Ledger[Question] = Ledger(questions_csv)
    for line, record in csv_rows(questions_csv):
        fields = [field.strip() for field in record]
        times = _SPAN.fullmatch(fields[1]) if len(fields) == 7 else None
        if not times:
            found = f"{len(fields)} fields" if len(fields) != 7 else f"{fields[1][:80]!r} in the second field"
            expected = "7: video id, [start:end], three wrong answers, question, right answer; there is no header"
            raise wrong(questions_csv, line, found, expected)
        if not all(fields):
            raise wrong(questions_csv, line, "a blank field", "7 that are not")
        span = span_of(questions_csv, line, *times.groups())
        path, span = _locate(folder, fields[0], span)
        if path is None:
            ledger.lack(Lack.media, fields[0])
        else:
            ledger.add(Question(fields[0], path, span, fields[5], (*fields[2:5], fields[6]), answer_index=3))
    return ledger.close()


def _locate(folder: MediaFolder, video_id: str, span: Span) -> tuple[Path | None, Span]:
    """The whole video, or the clip in which the span starts; the span in the time of what was found."""
    whole = folder.find(video_id)
    if whole:
        return whole, span
    start_s = int(span.start_s) // _CLIP_S * _CLIP_S
    clip = folder.find(f"{video_id}_{start_s}_{start_s + _CLIP_S}")
    return clip, Span(span.start_s - start_s, span.end_s - start_s)
