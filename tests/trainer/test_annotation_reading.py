"""Whose frames and #iter a public data set is read with, of models with several pasts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainer.annotation_reading import granularity_for, paper_granularity, with_texts
from trainer.classifier import VideoClassifier
from trainer.data_settings import GranularitySettings
from trainer.evaluate import Options, read_as

NUMBERS = {
    "SVST": (4, 1, 1),
    "LVLT": (8, 3, 3),
    "LVST": (8, 3, 2),
    "IT": (1, 0, 1),
    "COIN": (8, 3, 0),
    "TUNED": (6, 2, 2),
}


def model_of(pretrained, known, last=None, earlier=(), **record):
    """A model that knows these granularities, and was trained last on those of `last`."""
    granularities = {
        name: GranularitySettings(
            num_frames=NUMBERS[name][0], n_iter_video=NUMBERS[name][1], n_iter_text=NUMBERS[name][2]
        )
        for name in known
    }
    trained = {"samples": dict.fromkeys(last or known, 10), "earlier": list(earlier), **record}
    return replace(pretrained, granularities=granularities, trained=trained)


def numbers_of(model, kind, options=None):
    options = options or Options()
    usual = paper_granularity(kind, pictures=False)
    read = with_texts(model, read_as(model, granularity_for(model, kind, usual), options), usual, options)
    return read.granularity, read.num_frames, read.n_iter_video, read.n_iter_text, read.origin


def test_after_a_stage_of_images_alone_videos_are_read_as_before_it_or_as_in_the_paper(pretrained):
    """The only granularity of the last training stood in for all: videos of one frame, with #iter 0-1."""
    with_start = model_of(pretrained, ["SVST", "LVLT", "IT"], ["IT"])
    assert numbers_of(with_start, "activitynet") == ("LVLT", 8, 3, 3, "model")
    assert numbers_of(with_start, "msrvtt") == ("SVST", 4, 1, 1, "model")
    # a model that an earlier version made, which kept those of the last training only
    alone = model_of(pretrained, ["IT"])
    assert numbers_of(alone, "activitynet") == ("LVLT", 32, 3, 3, "paper")


def test_a_granularity_that_is_none_of_the_papers_stands_in_where_it_is_the_only_one_of_the_last_training(pretrained):
    assert numbers_of(model_of(pretrained, ["TUNED"]), "lsmdc") == ("TUNED", 6, 2, 2, "model")
    assert numbers_of(model_of(pretrained, ["LVLT", "TUNED"], ["TUNED"]), "lsmdc")[0] == "TUNED"
    assert numbers_of(model_of(pretrained, ["SVST", "TUNED"], ["TUNED"]), "lsmdc")[0] == "SVST"
    assert numbers_of(model_of(pretrained, ["LVLT", "TUNED"]), "lsmdc")[0] == "SVST"


def test_annotations_of_the_kind_that_a_model_was_tuned_on_are_read_as_then(pretrained):
    kind = {"annotations": {"kind": "msrvtt"}}
    tuned = model_of(pretrained, ["SVST", "LVLT", "TUNED"], ["TUNED"], **kind)
    assert numbers_of(tuned, "msrvtt") == ("TUNED", 6, 2, 2, "model")
    assert numbers_of(tuned, "activitynet") == ("LVLT", 8, 3, 3, "model")
    later = model_of(pretrained, ["SVST", "TUNED", "IT"], ["IT"], [{"samples": {"TUNED": 9}, **kind}])
    assert numbers_of(later, "msrvtt")[0] == "TUNED"


@pytest.mark.parametrize(
    ("known", "last", "num_passes"),
    [(["COIN"], ["COIN"], 1), (["LVST", "COIN"], ["COIN"], 2), (["LVST"], ["LVST"], 1)],
    ids=["the paper's", "of its start", "the paper's, not the classifier's own"],
)
def test_a_classifiers_prompts_are_encoded_with_the_passes_of_long_videos_with_short_texts(
    pretrained, known, last, num_passes
):
    """Classification needs no #iter of texts, so the template says 0: prompts were the mean of what nothing trained."""
    classifier = VideoClassifier(pretrained.model, ["a", "b"])
    model = replace(model_of(pretrained, known, last, annotations={"kind": "coin"}), classifier=classifier)
    assert numbers_of(model, "coin") == (last[0], 8, 3, num_passes, "model")
    assert numbers_of(model, "coin", Options(n_iter_text=0))[3] == 0
    assert numbers_of(replace(model, classifier=None), "coin")[3] == NUMBERS[last[0]][2]
