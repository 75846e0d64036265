"""What a scoring worker looks at: videos, pictures and damage as they lie in shards; without Ray."""

from __future__ import annotations

import numpy as np
import pytest

from gex_pipeline import ray_jobs
from gex_pipeline.errors import Reason
from gex_pipeline.media.frames import encode_jpeg
from gex_pipeline.ray_scorer import CLIP_VIDEO_NAMES, Scorer, VideoToScore, frames_to_score
from gex_pipeline.recipe import RaySettings
from gex_pipeline.shard_format import FRAMES_EXTENSION
from gex_pipeline.validate.clip import ClipCosine
from gex_pipeline.validate.settings import ScorerSettings
from tests.media.making_clips import make_clip
from tests.validate.groups import LONG_TEXTS, SUMMARIES
from tests.validate.tiny_clip import write_tiny_clip

PICTURE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_tiny_clip(tmp_path_factory.mktemp("models") / "clip", [*SUMMARIES, *LONG_TEXTS]))


def in_tar(folder, content: bytes, extension: str) -> VideoToScore:
    """A row whose media lies between other bytes."""
    path = folder / f"of-{extension}.tar"
    path.write_bytes(b"before" + content + b"behind")
    return VideoToScore(str(path), 6, len(content), extension, LONG_TEXTS[0], SUMMARIES[0])


def test_a_picture_is_looked_at_as_it_is(tmp_path, model):
    """Summaries of images, of a granularity that compress_video made, stopped the run where a CLIP model was named."""
    row = in_tar(tmp_path, encode_jpeg(PICTURE, 95), "jpg")
    (seen,) = frames_to_score(row, 8)
    assert seen.size == (64, 48)
    assert np.abs(np.asarray(seen, dtype=int) - PICTURE).mean() < 60
    (found,) = Scorer(ScorerSettings(clip_model=model), "cpu").score_videos([row])
    clip = ClipCosine(model, device="cpu")
    expected = clip.embed_texts([LONG_TEXTS[0], SUMMARIES[0]]) @ clip.embed_video([seen])
    assert (found.refusal, tuple(found.scores)) == ("", CLIP_VIDEO_NAMES)
    assert list(found.scores.values()) == pytest.approx(expected.tolist(), abs=1e-5)


def test_one_that_cannot_be_read_has_no_score_and_does_not_stop_the_others(tmp_path, model):
    whole = make_clip(tmp_path / "clip.mp4", 3).read_bytes()
    rows = [
        in_tar(tmp_path, b"no picture", "png"),
        in_tar(tmp_path, whole, "mp4"),
        in_tar(tmp_path, b"no video" * 99, "webm"),
        in_tar(tmp_path, b"no frames" * 99, FRAMES_EXTENSION),
    ]
    picture, video, noise, run = Scorer(ScorerSettings(clip_model=model), "cpu").score_videos(rows)
    assert (picture.scores, picture.refusal) == ({}, "undecodable: a picture cannot be decoded: UnidentifiedImageError")
    assert noise.scores == {}
    assert noise.refusal.startswith(str(Reason.not_a_video))
    assert run.scores == {}
    assert run.refusal.startswith("the run of frames has a damaged header at byte 0")
    assert (tuple(video.scores), video.refusal) == (CLIP_VIDEO_NAMES, "")


@pytest.mark.parametrize(
    ("asked", "engine_gpus", "room", "num"),
    [
        ({}, 1, {"CPU": 16.0, "GPU": 1.0}, 4),
        ({}, 0, {"CPU": 64.0}, 16),
        ({}, 0, {"CPU": 2.0}, 1),
        ({}, 1, {"CPU": 16.0}, 1),
        ({"scorer_gpus": 0.25}, 1, {"CPU": 16.0, "GPU": 2.0}, 1),
        ({"scorers": 7}, 1, {"CPU": 16.0, "GPU": 1.0}, 7),
    ],
)
def test_a_gpus_engine_has_more_than_one_scorer_where_the_machine_has_cores(monkeypatch, asked, engine_gpus, room, num):
    """By default one worker with one thread, 28 summaries a second, held every engine up on machines of any size."""
    monkeypatch.setattr("ray.cluster_resources", lambda: room)
    assert ray_jobs._num_scorers(RaySettings(**asked), engine_gpus) == num
