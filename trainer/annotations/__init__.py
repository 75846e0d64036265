"""Annotation files of public data sets in, frozen rows out; one file a family, one function a reader.

A reader takes the annotation file and a folder of media, matches files by id, and returns `Annotations`: the rows,
and every entry that gave no row, by name and reason. It opens no media. A file in another format is refused in one
sentence that names file and line. Formats: docs/evaluation.md.
"""

from __future__ import annotations

from trainer.annotations.activitynet import read_activitynet
from trainer.annotations.charades_ego import read_charades_ego
from trainer.annotations.class_folders import read_class_folders
from trainer.annotations.coin import read_coin
from trainer.annotations.how2qa import read_how2qa
from trainer.annotations.lsmdc import read_lsmdc
from trainer.annotations.lvu import read_lvu
from trainer.annotations.msrvtt import read_msrvtt
from trainer.annotations.parsing import AnnotationError
from trainer.annotations.rows import Annotations, LabelledVideo, Lack, Question, RetrievalPair, Span

__all__ = [
    "AnnotationError",
    "Annotations",
    "LabelledVideo",
    "Lack",
    "Question",
    "RetrievalPair",
    "Span",
    "read_activitynet",
    "read_charades_ego",
    "read_class_folders",
    "read_coin",
    "read_how2qa",
    "read_lsmdc",
    "read_lvu",
    "read_msrvtt",
]
