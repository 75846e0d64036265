from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from gex_pipeline.errors import GexError
from gex_pipeline.progress import Progress, shown_by
from tests.trainer.conftest import write_tiny_model
from tests.trainer.test_sequence import ruin
from trainer.catalog import read_catalog
from trainer.encoding import classify_videos, encode, encode_texts, encode_videos
from trainer.frames import read_frames
from trainer.media_reader import MediaReader
from trainer.pretrained import Pretrained
from trainer.sequence import Reading, SequenceLoader

READING = Reading(num_frames=3, image_size_px=32, batch_size=4)


def over(output, function, name="LVST", reading=READING, numbers=None):
    """What `function` makes of a loader over all samples."""
    with (
        read_catalog(str(output)) as catalog,
        SequenceLoader(catalog.split(0).training, name, reading, numbers) as loader,
    ):
        return function(loader)


def plainly(output, pretrained, number, n_iter_video, n_iter_text, name="LVST"):
    """The vectors of one sample, by the model itself."""
    with read_catalog(str(output)) as catalog:
        sample = catalog.sample(name, number)
        frames = read_frames(sample, 3, 32, MediaReader())
    with torch.inference_mode():
        video = pretrained.model.encode_video(torch.from_numpy(frames)[None], n_iter_video)
        text = pretrained.model.encode_text(pretrained.tokenizer([sample.text]), n_iter_text)
    return video[0].numpy(), text[0].numpy()


def test_rows_are_what_the_model_says_of_each_sample_alone(numbered_output, pretrained):
    encoded = over(numbered_output, lambda loader: encode(pretrained, loader, 3, 1))
    assert encoded.video_VD.shape == encoded.text_VD.shape == (18, 16)
    assert encoded.video_VD.dtype == encoded.text_VD.dtype == np.float32
    assert encoded.damaged == ()
    for number in (0, 5, 17):
        video, text = plainly(numbered_output, pretrained, number, 3, 1)
        np.testing.assert_allclose(encoded.video_VD[number], video, atol=1e-5)
        np.testing.assert_allclose(encoded.text_VD[number], text, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(encoded.video_VD, axis=1), 1, atol=1e-5)


def test_other_iterations_give_other_vectors_of_the_branch_that_they_are_of(numbered_output, pretrained):
    first = over(numbered_output, lambda loader: encode(pretrained, loader, 3, 1))
    more_video = over(numbered_output, lambda loader: encode(pretrained, loader, 5, 1))
    more_text = over(numbered_output, lambda loader: encode(pretrained, loader, 3, 2))
    assert np.abs(first.video_VD - more_video.video_VD).max() > 1e-3
    assert np.array_equal(first.text_VD, more_video.text_VD)
    assert np.array_equal(first.video_VD, more_text.video_VD)
    assert np.abs(first.text_VD - more_text.text_VD).max() > 1e-3


def test_damaged_samples_have_no_row_and_the_others_keep_theirs(numbered_output, pretrained, tmp_path):
    output = shutil.copytree(numbered_output, tmp_path / "out")
    keys = ruin(output, "LVST", 0, range(1, 3))  # media of an LVST sample lie in the LVLT shard
    whole = over(numbered_output, lambda loader: encode(pretrained, loader, 3, 1))
    encoded = over(output, lambda loader: encode(pretrained, loader, 3, 1))
    assert [one.key for one in encoded.damaged] == keys
    kept = [row for row, key in enumerate(whole.keys) if key not in keys]
    assert encoded.keys == tuple(whole.keys[row] for row in kept)
    assert encoded.texts == tuple(whole.texts[row] for row in kept)
    np.testing.assert_allclose(encoded.video_VD, whole.video_VD[kept], atol=1e-5)
    np.testing.assert_allclose(encoded.text_VD, whole.text_VD[kept], atol=1e-5)


def test_rows_are_found_by_key_in_whatever_order_they_were_asked_for(numbered_output, pretrained):
    forward = over(numbered_output, lambda loader: encode_videos(pretrained, loader, 3))
    backward = over(numbered_output, lambda loader: encode_videos(pretrained, loader, 3), numbers=range(17, -1, -1))
    place = backward.row_of()
    assert forward.keys != backward.keys
    np.testing.assert_allclose(forward.video_VX, backward.video_VX[[place[key] for key in forward.keys]], atol=1e-5)


class Counted:
    """A model that tells what texts it was asked for."""

    def __init__(self, pretrained):
        self.pretrained, self.asked = pretrained, []
        self.encode_tokens = pretrained.encode_tokens

    def tokenizer(self, texts):
        self.asked += texts
        return self.pretrained.tokenizer(texts)


def test_texts_that_are_equal_are_encoded_once(pretrained):
    counted = Counted(pretrained)
    vectors, num_truncated = encode_texts(
        counted, ["a cat", "video01", "a cat", "in short", "video01"], 1, batch_size=2
    )
    assert (counted.asked, num_truncated) == (["a cat", "video01", "in short"], 0)
    assert np.array_equal(vectors[0], vectors[2])
    assert np.array_equal(vectors[1], vectors[4])
    np.testing.assert_allclose(vectors[3], pretrained.encode_texts(["in short"], 1)[0].numpy(), atol=1e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    with pytest.raises(ValueError, match="expected at least one text"):
        encode_texts(pretrained, [], 1)


def test_logits_are_those_of_the_head(numbered_output, tiny_clip_folder, tmp_path):
    folder = write_tiny_model(tmp_path / "model", tiny_clip_folder, ("clap", "jump", "sit"))
    classifier = Pretrained.from_pretrained(folder)
    found = over(numbered_output, lambda loader: classify_videos(classifier, loader, 3))
    assert found.video_VX.shape == (18, 3)
    with read_catalog(str(numbered_output)) as catalog:
        frames = read_frames(catalog.sample("LVST", 4), 3, 32, MediaReader())
    with torch.inference_mode():
        expected = classifier.classifier.head(classifier.model.pool_video(torch.from_numpy(frames)[None], 3))[0]
    np.testing.assert_allclose(found.video_VX[4], expected.numpy(), atol=1e-5)


def test_a_model_without_classes_says_so(numbered_output, pretrained):
    with pytest.raises(GexError, match="this model has no classes"):
        over(numbered_output, lambda loader: classify_videos(pretrained, loader, 3))


def test_nothing_that_can_be_read_is_an_error_that_names_the_first(numbered_output, pretrained, tmp_path):
    output = shutil.copytree(numbered_output, tmp_path / "out")
    keys = ruin(output, "IT", 0, range(2))
    with pytest.raises(GexError, match=f"none of 2 samples of IT can be read; the first are {keys[0]}: an image"):
        over(output, lambda loader: encode(pretrained, loader, 0, 1), "IT", Reading(1, 32), range(2))


class Told(Progress):
    def __init__(self):
        self.told = []

    def stage(self, name, total, unit):
        self.told.append((name, total, unit))

    def advance(self, amount):
        self.told.append(amount)


def test_progress_counts_damaged_samples_too(numbered_output, pretrained, tmp_path):
    output = shutil.copytree(numbered_output, tmp_path / "out")
    ruin(output, "IT", 0, range(1))
    told = Told()
    with shown_by(told):
        over(output, lambda loader: encode(pretrained, loader, 0, 1), "IT", Reading(1, 32, batch_size=10))
    assert told.told == [("encode IT", 18, "samples"), 10, 8]
