from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gex_pipeline.errors import GexError
from tests.media.making_clips import Make, make_clip
from tests.trainer.annotations.real_formats import CHARADES_CLASSES, COIN_ENTRY, written
from tests.trainer.outputs import numbers_of
from trainer.annotation_catalog import (
    MediaText,
    catalog_of,
    keys_of,
    pairs_of,
    read_annotation_catalog,
    read_annotations,
)
from trainer.annotations import LabelledVideo, RetrievalPair, Span
from trainer.annotations.rows import Annotations
from trainer.catalog import source_number
from trainer.data_settings import AnnotationSettings
from trainer.order import Order, Part
from trainer.sequence import Reading, SequenceLoader

READING = Reading(num_frames=3, image_size_px=48, batch_size=4)


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """Videos a, b, c of 25 frames, one second each; every frame says which it is."""
    folder = tmp_path_factory.mktemp("media")
    for number, name in enumerate(["a.mp4", "sub/b.MP4", "c.mkv"]):
        (folder / name).parent.mkdir(exist_ok=True)
        make_clip(folder / name, number + 1, Make(num_frames=25, size_px=(96, 96)))
    return folder


def settings(kind: str, file: Path, media: Path | None = None, **rest) -> AnnotationSettings:
    place = None if media is None else str(media)
    return AnnotationSettings(kind=kind, file=str(file), media=place, **{k: str(v) for k, v in rest.items()})


def load(catalog, name, reading=READING, numbers=None):
    with SequenceLoader(catalog.split(0).training, name, reading, numbers) as loader:
        return list(loader)


def captions_of(tmp_path: Path, media: Path, captions: dict[str, list[str]]) -> AnnotationSettings:
    videos = written(tmp_path / "train.csv", "video_id\n" + "".join(f"{name}\n" for name in captions))
    sentences = [{"video_id": name, "caption": text} for name, texts in captions.items() for text in texts]
    return settings("msrvtt", videos, media, captions=written(tmp_path / "captions.json", {"sentences": sentences}))


def test_every_caption_of_a_video_is_a_sample_with_the_frames_of_that_video(tmp_path, media):
    of = captions_of(tmp_path, media, {"a": ["one", "two"], "b": ["three"], "gone": ["four"]})
    catalog, annotations = read_annotation_catalog(of, "SVST")
    with catalog:
        samples = [catalog.sample("SVST", number) for number in range(catalog.num_samples("SVST"))]
        assert [(sample.source_id, sample.text) for sample in samples] == [("a", "one"), ("b", "three"), ("a", "two")]
        assert [sample.media_uri for sample in samples] == [
            str(media / name) for name in ("a.mp4", "sub/b.MP4", "a.mp4")
        ]
        assert [sample.media_extension for sample in samples] == ["mp4", "mp4", "mp4"]
        assert samples[1].source_number == source_number("b")
        assert (samples[0].start_s, samples[0].end_s) == (None, None)
        (batch,) = load(catalog, "SVST")
    assert [numbers_of(frames.numpy())[0][0] for frames in batch.frames_BT3HW] == [1, 2, 1]
    assert [frame for _, frame in numbers_of(batch.frames_BT3HW[0].numpy())] == [4, 12, 20]
    assert annotations.describe().endswith("1 without media: gone")


def test_keys_are_unique_and_the_same_wherever_the_files_lie(tmp_path, media):
    pairs = [
        MediaText("a", media / "a.mp4", "one"),
        MediaText("a", media / "a.mp4", "one"),  # word for word, as in MSR-VTT
        MediaText("a", media / "a.mp4", "one", Span(0, 1)),
        MediaText("a", media / "a.mp4", "one", Span(0, 1.5)),
        MediaText("a", media / "other.mp4", "one"),
        MediaText("b", media / "a.mp4", "one"),
    ]
    keys = keys_of(pairs)
    assert len(set(keys)) == len(pairs)
    assert all(len(key) == 32 and key.isalnum() for key in keys)
    elsewhere = [MediaText(one.source_id, tmp_path / one.media.name, one.text, one.span) for one in pairs]
    assert keys_of(elsewhere) == keys
    assert keys_of(pairs[2:4]) == keys[2:4]


def test_a_span_is_sampled_within_it_and_cut_to_the_video(media):
    a = media / "a.mp4"
    spans = [None, Span(0.24, 0.48), Span(0.8, 9.0), Span(0.24, 0.24), Span(0.99, 0.99), Span(1.0, 2.0), Span(1.5, 1.5)]
    samples = [MediaText("a", a, f"text {number}", span) for number, span in enumerate(spans)]
    with catalog_of(samples, "parts", "here") as catalog:
        batches = load(catalog, "parts")
        keys = [catalog.sample("parts", number).key for number in range(len(spans))]
    frames = [[frame for _, frame in numbers_of(one.numpy())] for batch in batches for one in batch.frames_BT3HW]
    assert frames == [[4, 12, 20], [7, 9, 11], [20, 22, 24], [6, 6, 6], [24, 24, 24]]
    damaged = [one for batch in batches for one in batch.damaged]
    assert [one.key for one in damaged] == keys[5:]
    assert damaged[0].reason == "its part from 1 to 2 s lies behind the video's end, 1 s"


def test_classes_are_texts_and_questions_come_with_their_right_answer(tmp_path, media):
    entries = {name: {**COIN_ENTRY, "start": 0.2, "end": 0.6} for name in ("a", "b")}
    coin = written(tmp_path / "COIN.json", {"database": entries})
    catalog, _ = read_annotation_catalog(settings("coin", coin, media, subset="training"), "LVST")
    with catalog:
        sample = catalog.sample("LVST", 1)
    assert (sample.text, sample.start_s, sample.end_s) == ("ReplaceCDDriveWithSSD", 0.2, 0.6)
    questions = written(tmp_path / "q.csv", "a,[0:0.5],red,green,blue,Which colour?,white\n")
    catalog, _ = read_annotation_catalog(settings("how2qa", questions, media), "SVST")
    with catalog:
        assert catalog.sample("SVST", 0).text == "Which colour? white"


def test_without_a_subset_coin_is_trained_on_one_and_measured_on_the_other(tmp_path, media):
    entries = {
        name: {**COIN_ENTRY, "subset": subset, "start": 0.2, "end": 0.6}
        for name, subset in (("a", "training"), ("b", "testing"), ("c", "training"))
    }
    coin = settings("coin", written(tmp_path / "COIN.json", {"database": entries}), media)
    catalog, _ = read_annotation_catalog(coin, "LVST")
    with catalog:
        trained_on = {catalog.sample("LVST", number).source_id for number in range(catalog.num_samples("LVST"))}
    assert trained_on == {"a", "c"}
    assert {row.video_id for row in read_annotations(coin).rows} == {"b"}


def test_charades_gives_a_pair_an_action_to_train_on_and_a_row_a_video_to_evaluate(tmp_path, media):
    videos = written(tmp_path / "test.csv", "id,actions\na,c002 0.1 0.5;c000 0.0 0.2\nb,\n")
    of = settings("charades-ego", videos, media, class_names=written(tmp_path / "classes.txt", CHARADES_CLASSES))
    catalog, _ = read_annotation_catalog(of, "LVST")
    with catalog:
        samples = [catalog.sample("LVST", number) for number in range(catalog.num_samples("LVST"))]
    assert [(one.text, one.start_s) for one in samples] == [("Taking some clothes", 0.1), ("Holding some clothes", 0.0)]
    assert [row.labels for row in read_annotations(of).rows] == [(0, 2), ()]


def test_a_video_with_several_classes_is_a_pair_with_each():
    rows = (LabelledVideo("a", Path("a.mp4"), (0, 2)), LabelledVideo("b", Path("b.mp4"), (1,)))
    pairs = pairs_of(Annotations(Path("x"), rows, 2, class_names=("sit", "run", "eat")))
    assert [(pair.source_id, pair.text) for pair in pairs] == [("a", "sit"), ("b", "run"), ("a", "eat")]


def test_thousands_of_pairs_lie_in_several_shards_and_split_by_video(media):
    rows = tuple(RetrievalPair(f"v{number}", media / "a.mp4", ("first", "second")) for number in range(1100))
    with catalog_of(pairs_of(Annotations(Path("x"), rows, 1100)), "SVST", "here") as catalog:
        assert catalog.shard_sizes("SVST").tolist() == [1000, 1000, 200]
        assert [catalog.sample("SVST", number).text for number in (0, 1099, 1100, 2199)] == ["first"] * 2 + [
            "second"
        ] * 2
        parts = catalog.split(0.25).training, catalog.split(0.25).held_out
        sides = [{part.sample("SVST", n).source_id for n in range(part.num_samples("SVST"))} for part in parts]
        assert not sides[0] & sides[1]
        assert len(sides[0]) + len(sides[1]) == 1100
        assert 200 < len(sides[1]) < 350
        order = Order([Part("SVST", catalog.shard_sizes("SVST"))], batch_size=100)
        taken = np.concatenate([order.batch_of(step) for step in range(order.steps_per_epoch)])
        assert sorted(taken) == list(range(2200))


def test_a_set_without_pairs_is_named(tmp_path, media):
    coin = written(tmp_path / "COIN.json", {"database": {"gone": COIN_ENTRY}})
    with pytest.raises(GexError, match=r"COIN\.json' gives no sample; its media are not there, or have no text"):
        read_annotation_catalog(settings("coin", coin, media, subset="training"), "LVST")


def test_a_file_that_went_away_is_a_damaged_sample(media, tmp_path):
    with catalog_of(
        [MediaText("x", tmp_path / "x.mp4", "t"), MediaText("a", media / "a.mp4", "t")], "S", "o"
    ) as catalog:
        (batch,) = load(catalog, "S")
    assert [one.reason for one in batch.damaged] == ["it has no video or picture"]
    assert len(batch.keys) == 1
