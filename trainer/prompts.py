"""Zero-shot classification: class names to prompts, and the prompts' features to one feature a class. NumPy only.

A template is a sentence with ``{label}`` once. Knows no model: the caller encodes the prompts. Legend: K classes,
T templates, D width.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from string import Formatter

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainer.annotations.parsing import lines
from trainer.metrics import normalised

PAPER_TEMPLATES = ("A video of a {label}.",)  # Paper: GEXIA, zero-shot classification with one prompt
_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class TemplateError(ValueError):
    """A template that is none; one sentence that says which."""


def read_templates(path: Path) -> tuple[str, ...]:
    """Templates from a UTF-8 file, one a line; blank lines and lines that begin with ``#`` are left out.

    Raises:
        TemplateError: a line is no template, or the file holds none; AnnotationError: it cannot be read as UTF-8.
    """
    templates: list[str] = []
    for number, line in lines(path):
        text = line.strip()
        if text.startswith("#"):
            continue
        try:
            check_template(text)
        except TemplateError as error:
            raise TemplateError(f"{path}, line {number}: {error}") from error
        templates.append(text)
    if not templates:
        raise TemplateError(f"{path} holds no template; expected lines such as {PAPER_TEMPLATES[0]!r}")
    return tuple(templates)


def check_template(template: str) -> None:
    """Refuse what is not a sentence with ``{label}`` once.

    Raises:
        TemplateError: no label, more than one, another field, or a brace alone (write ``{{`` for a brace).
    """
    try:
        fields = [(name, spec, conversion) for _, name, spec, conversion in Formatter().parse(template)]
    except ValueError as error:
        raise TemplateError(f"{template!r} has a brace alone ({error}); expected {{label}} once") from error
    if [field for field in fields if field[0] is not None] != [("label", "", None)]:
        raise TemplateError(f"{template!r} is no template; expected {{label}} once and no other field")


def prompts_of(label: str, templates: Sequence[str] = PAPER_TEMPLATES) -> tuple[str, ...]:
    """The prompts of one class, in the order of the templates; the label is put in as it is.

    Raises:
        TemplateError: a template is none.
    """
    for template in templates:
        check_template(template)
    return tuple(template.format(label=label) for template in templates)


def spoken_name(class_name: str) -> str:
    """A class name as words: ``ReplaceCDDriveWithSSD`` → ``replace CD drive with SSD``, ``way_speaking`` too.

    Words in capitals stay; others are written small where the name was joined, so a name of words is left alone.
    """
    words = _WORD_STARTS.sub(" ", class_name.replace("_", " ")).split()
    if words == class_name.split():
        return class_name.strip()
    return " ".join(word if word.isupper() and len(word) > 1 else word.lower() for word in words)


def class_features(features_KTD: ArrayLike) -> NDArray[np.float32]:
    """One feature a class, (K, D), length 1: each prompt's feature is normalised, then their mean is.

    Normalising first gives each template the same weight; the mean of unit vectors is shorter than 1, so it is
    normalised again.

    Raises:
        ValueError: another shape than (K, T, D), no template, or features whose mean has no direction.
    """
    features = np.asarray(features_KTD)
    if features.ndim != 3 or not features.shape[1]:
        raise ValueError(f"features of classes by templates by width are needed, not shape {features.shape}")
    return normalised(normalised(features).mean(axis=1, dtype=np.float64))
