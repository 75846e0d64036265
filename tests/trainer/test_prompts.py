"""Templates, class names and the averaging of prompts."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.annotations import AnnotationError
from trainer.prompts import (
    TemplateError,
    class_features,
    prompts_of,
    read_templates,
    spoken_name,
)


def test_the_paper_has_one_prompt():
    assert prompts_of("tench") == ("A video of a tench.",)


def test_a_label_is_put_in_as_it_is():
    assert prompts_of("{label} {0!r}") == ("A video of a {label} {0!r}.",)


def test_templates_come_from_a_file_of_lines(tmp_path):
    path = tmp_path / "templates.txt"
    path.write_text("# ours\n\nA film of {label}.\n  {{so}} {label}  \n", encoding="utf-8")
    assert read_templates(path) == ("A film of {label}.", "{{so}} {label}")
    assert prompts_of("x", read_templates(path)) == ("A film of x.", "{so} x")


@pytest.mark.parametrize(
    "line",
    ["A video.", "{label} and {label}", "{}", "{0}", "{label} {other}", "{label.__class__}", "{label!r}", "{label:>9}"],
)
def test_a_line_that_is_no_template_is_refused_with_its_number(tmp_path, line):
    path = tmp_path / "templates.txt"
    path.write_text(f"A {{label}}.\n{line}\n", encoding="utf-8")
    with pytest.raises(TemplateError, match=r"templates\.txt, line 2: .* is no template; expected \{label\} once"):
        read_templates(path)


def test_a_lone_brace_an_empty_file_and_a_missing_one_are_refused(tmp_path):
    with pytest.raises(TemplateError, match="a brace alone"):
        prompts_of("x", ["{label} }"])
    path = tmp_path / "templates.txt"
    path.write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(TemplateError, match="holds no template"):
        read_templates(path)
    with pytest.raises(AnnotationError, match="cannot be read"):
        read_templates(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ReplaceCDDriveWithSSD", "replace CD drive with SSD"),
        ("ChangeCarTire", "change car tire"),
        ("wife_husband", "wife husband"),
        ("UseAPen", "use a pen"),
        ("Holding some clothes", "Holding some clothes"),
        ("tench", "tench"),
    ],
)
def test_joined_class_names_are_read_as_words(name, words):
    assert spoken_name(name) == words


def test_prompts_are_normalised_then_averaged_then_normalised():
    features = np.array([[[10.0, 0.0], [0.0, 0.1]], [[3.0, 4.0], [3.0, 4.0]]])
    found = class_features(features)
    assert found == pytest.approx(np.array([[np.sqrt(0.5), np.sqrt(0.5)], [0.6, 0.8]]))
    assert found.dtype == np.float32


def test_the_length_of_a_prompts_feature_has_no_weight():
    features = np.random.default_rng(0).normal(size=(4, 3, 8))
    scaled = features * np.array([1.0, 20.0, 0.3])[None, :, None]
    assert class_features(scaled) == pytest.approx(class_features(features), abs=1e-6)
    assert np.linalg.norm(class_features(features), axis=1) == pytest.approx(np.ones(4))
    plain_mean = features.mean(axis=1)
    assert not np.allclose(class_features(features), plain_mean / np.linalg.norm(plain_mean, axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((2, 3)), "classes by templates by width"),
        (np.zeros((2, 0, 3)), "classes by templates by width"),
        (np.array([[[1.0, 0.0], [-1.0, 0.0]]]), "no direction"),
        (np.array([[[np.nan, 0.0]]]), "NaN"),
    ],
)
def test_features_without_an_average_are_refused(features, message):
    with pytest.raises(ValueError, match=message):
        class_features(features)
