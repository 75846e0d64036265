from __future__ import annotations

import pytest
from pydantic import ValidationError

from trainer.data_settings import DataSettings


def test_the_papers_granularities_need_no_numbers():
    settings = DataSettings.model_validate({"dataset": "out", "granularities": {"LVLT": {}, "IT": {"weight": 0.5}}})
    long, image = settings.granularities["LVLT"], settings.granularities["IT"]
    assert (long.num_frames, long.n_iter_video, long.n_iter_text, long.weight) == (32, 3, 3, 1.0)
    assert (image.num_frames, image.n_iter_video, image.n_iter_text, image.weight) == (1, 0, 1, 0.5)
    assert settings.batch_size == 512


def test_a_number_that_is_given_stands_and_another_granularity_needs_its_numbers():
    tables = {"LVST": {"num_frames": 8}}
    assert (
        DataSettings.model_validate({"dataset": "out", "granularities": tables}).granularities["LVST"].num_frames == 8
    )
    with pytest.raises(ValidationError, match="num_frames"):
        DataSettings.model_validate({"dataset": "out", "granularities": {"CHANNEL": {}}})


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": 0}, {"held_out_share": 1.0}, {"granularities": {}}, {"batchsize": 4}, {"granularities": {"IT": 3}}],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        DataSettings.model_validate({"dataset": "out", "granularities": {"IT": {}}, **wrong})
