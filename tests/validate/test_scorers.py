from __future__ import annotations

import random

import pytest

from gex_pipeline.errors import GexError
from gex_pipeline.validate.scorers import TextScorers
from gex_pipeline.validate.settings import ScorerSettings
from tests.validate.groups import FOREIGN_TEXTS, LONG_TEXTS, MIXED_LENGTHS, SUMMARIES

TEXT_NAMES = (
    "rouge1",
    "rouge2",
    "rougeL",
    "sentence_cosine",
    "bertscore_precision",
    "bertscore_recall",
    "bertscore_f1",
)


@pytest.fixture(scope="module")
def scorers(tiny_clip_folder):
    return TextScorers(ScorerSettings(clip_model=str(tiny_clip_folder)))


def test_every_row_has_the_announced_names_in_their_order(scorers):
    assert scorers.names() == (*TEXT_NAMES, "clip_text_cosine")
    for row in scorers.score(SUMMARIES, LONG_TEXTS):
        assert tuple(row) == scorers.names()
        assert all(type(value) is float for value in row.values())


def test_the_defaults_score_without_clip():
    assert TextScorers(ScorerSettings()).names() == TEXT_NAMES


def test_scores_equal_those_of_each_score_alone(scorers, sentence, bertscore, clip):
    rows = scorers.score(SUMMARIES, LONG_TEXTS)
    assert [row["sentence_cosine"] for row in rows] == pytest.approx(sentence(SUMMARIES, LONG_TEXTS), abs=1e-6)
    assert [row["bertscore_f1"] for row in rows] == pytest.approx(
        [row["bertscore_f1"] for row in bertscore(SUMMARIES, LONG_TEXTS)], abs=1e-6
    )
    assert [row["clip_text_cosine"] for row in rows] == pytest.approx(clip.text_text(SUMMARIES, LONG_TEXTS), abs=1e-6)


def test_a_shuffled_batch_gives_every_pair_its_own_row(scorers):
    rows = scorers.score(*map(list, zip(*MIXED_LENGTHS, strict=True)))
    order = random.Random(5).sample(range(len(MIXED_LENGTHS)), len(MIXED_LENGTHS))
    shuffled = scorers.score([MIXED_LENGTHS[row][0] for row in order], [MIXED_LENGTHS[row][1] for row in order])
    for place, row in enumerate(order):
        assert shuffled[place] == pytest.approx(rows[row], abs=1e-4)


def test_a_blank_summary_scores_zero_everywhere(scorers):
    (row,) = scorers.score([" \u200b"], [LONG_TEXTS[0]])
    assert row == dict.fromkeys(scorers.names(), 0.0)


def test_own_pairs_score_higher_than_foreign_pairs_in_every_trained_score(scorers):
    own, foreign = scorers.score(SUMMARIES, LONG_TEXTS), scorers.score(SUMMARIES, FOREIGN_TEXTS)
    for name in ("rouge1", "rougeL", "sentence_cosine", "bertscore_f1"):
        assert min(row[name] for row in own) > max(row[name] for row in foreign), name


def test_a_score_that_is_switched_off_loads_no_model():
    scorers = TextScorers(ScorerSettings(sentence_model=None, bertscore_model=None))
    assert scorers.names() == ("rouge1", "rouge2", "rougeL")
    assert tuple(scorers.score(["a dog"], ["a dog runs"])[0]) == scorers.names()
    assert scorers.signatures() == {}
    assert not {"_sentence", "_bertscore", "clip"} & set(vars(scorers))


def test_every_model_stays_on_the_named_device_where_there_is_a_gpu(tiny_clip_folder, monkeypatch):
    """A device was chosen by what the process sees, and scores took the GPU of an engine."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    on_cpu = TextScorers(ScorerSettings(clip_model=str(tiny_clip_folder)), device="cpu")
    assert tuple(on_cpu.score(["a dog"], ["a dog runs"])[0]) == on_cpu.names()
    models = (on_cpu._sentence._model, on_cpu._bertscore._scorer._model, on_cpu.clip._model)
    assert {str(model.device) for model in models} == {"cpu"}


def test_without_any_score_there_is_an_empty_row_a_pair():
    scorers = TextScorers(ScorerSettings(rouge=False, sentence_model=None, bertscore_model=None))
    assert scorers.score(["a", "b"], ["c", "d"]) == [{}, {}]


def test_no_pairs_load_no_model_and_a_model_is_loaded_once(scorers):
    fresh = TextScorers(ScorerSettings())
    assert fresh.score([], []) == []
    assert "_sentence" not in vars(fresh)
    scorers.score(["a"], ["b"])
    first = scorers._sentence
    scorers.score(["a"], ["b"])
    assert scorers._sentence is first


def test_signatures_name_the_model_behind_each_score(scorers):
    assert scorers.signatures() == {
        "sentence_cosine": "all-MiniLM-L6-v2",
        "bertscore_precision": "all-MiniLM-L6-v2_L5_no-idf_raw",
        "bertscore_recall": "all-MiniLM-L6-v2_L5_no-idf_raw",
        "bertscore_f1": "all-MiniLM-L6-v2_L5_no-idf_raw",
        "clip_text_cosine": "tiny-clip",
    }


def test_the_clip_of_settings_without_one_is_a_clear_error():
    with pytest.raises(GexError, match="clip_model is not set"):
        _ = TextScorers(ScorerSettings()).clip


def test_lists_of_different_length_are_refused(scorers):
    with pytest.raises(ValueError, match="expected pairs"):
        scorers.score(["a"], [])
