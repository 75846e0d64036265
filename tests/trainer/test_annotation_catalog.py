from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gex_pipeline.errors import GexError
from tests.media.making_clips import Make, make_clip
from tests.trainer.annotations.real_formats import CHARADES_CLASSES, COIN_ENTRY, LVU_HEADER, written
from tests.trainer.outputs import numbers_of
from trainer.annotation_catalog import (
    MediaText,
    catalog_of,
    keys_of,
    pairs_of,
    read_annotation_catalog,
    read_annotations,
    spans_of,
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
    catalog, annotations, videos = read_annotation_catalog(of, "SVST")
    with catalog:
        samples = [catalog.sample("SVST", number) for number in range(catalog.num_samples("SVST"))]
        found = [(sample.source_id, sample.text) for sample in samples]
        assert sorted(found[:2]) == [("a", "one"), ("b", "three")]  # first texts, mixed
        assert found[2] == ("a", "two")
        assert [sample.media_uri for sample in samples] == [
            str(media / {"a": "a.mp4", "b": "sub/b.MP4"}[name]) for name, _ in found
        ]
        assert [sample.media_extension for sample in samples] == ["mp4", "mp4", "mp4"]
        assert [sample.source_number for sample in samples] == [source_number(name) for name, _ in found]
        assert (samples[0].start_s, samples[0].end_s) == (None, None)
        (batch,) = load(catalog, "SVST")
    assert videos.tolist() == [{"a": 0, "b": 1}[name] for name, _ in found]  # numbered as the file has them
    assert [numbers_of(frames.numpy())[0][0] for frames in batch.frames_BT3HW] == [
        {"a": 1, "b": 2}[name] for name, _ in found
    ]
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


def test_classes_are_prompts_and_questions_come_with_their_right_answer(tmp_path, media):
    """The text of a class was its raw name, which no evaluation asks for."""
    entries = {name: {**COIN_ENTRY, "start": 0.2, "end": 0.6} for name in ("a", "b")}
    coin = written(tmp_path / "COIN.json", {"database": entries})
    catalog, *_ = read_annotation_catalog(settings("coin", coin, media, subset="training"), "LVST")
    with catalog:
        sample = catalog.sample("LVST", 1)
    assert sample.text == "A video of a replace CD drive with SSD."
    catalog, annotations, _ = read_annotation_catalog(settings("coin", coin, media), "LVST", "classification")
    with catalog:
        assert catalog.sample("LVST", 1).text == annotations.class_names[0] == "ReplaceCDDriveWithSSD"
    questions = written(tmp_path / "q.csv", "a,[0:0.5],red,green,blue,Which colour?,white\n")
    catalog, *_ = read_annotation_catalog(settings("how2qa", questions, media), "SVST")
    with catalog:
        assert catalog.sample("SVST", 0).text == "Which colour? white"


def test_coin_is_trained_on_and_measured_over_whole_videos_or_the_part_that_shows_the_task(tmp_path, media):
    """Only the part was taken, which LF-VILA, whose protocol the paper follows, does not even read."""
    entries = {name: {**COIN_ENTRY, "subset": name, "start": 0.2, "end": 0.6} for name in ("training", "testing")}
    for name in entries:
        (tmp_path / f"{name}.mp4").write_bytes((media / "a.mp4").read_bytes())
    whole = settings("coin", written(tmp_path / "COIN.json", {"database": entries}), tmp_path)
    for of, part, seen in (
        (whole, None, [4, 12, 20]),
        (whole.model_copy(update={"trim": True}), (0.2, 0.6), [6, 10, 13]),
    ):
        catalog, *_ = read_annotation_catalog(of, "LVST", "classification")
        with catalog:
            sample = catalog.sample("LVST", 0)
            (batch,) = load(catalog, "LVST")
        assert (sample.start_s, sample.end_s) == (part or (None, None))
        assert [frame for _, frame in numbers_of(batch.frames_BT3HW[0].numpy())] == seen
        (row,) = read_annotations(of).rows
        assert (row.video_id, row.span) == ("testing", part and Span(*part))


def test_without_a_subset_coin_is_trained_on_one_and_measured_on_the_other(tmp_path, media):
    entries = {
        name: {**COIN_ENTRY, "subset": subset, "start": 0.2, "end": 0.6}
        for name, subset in (("a", "training"), ("b", "testing"), ("c", "training"))
    }
    coin = settings("coin", written(tmp_path / "COIN.json", {"database": entries}), media)
    catalog, *_ = read_annotation_catalog(coin, "LVST")
    with catalog:
        trained_on = {catalog.sample("LVST", number).source_id for number in range(catalog.num_samples("LVST"))}
    assert trained_on == {"a", "c"}
    assert {row.video_id for row in read_annotations(coin).rows} == {"b"}


def test_charades_gives_a_pair_an_action_to_train_on_and_a_row_a_video_to_evaluate(tmp_path, media):
    videos = written(tmp_path / "test.csv", "id,actions\na,c002 0.1 0.5;c000 0.0 0.2\nb,\n")
    of = settings("charades-ego", videos, media, class_names=written(tmp_path / "classes.txt", CHARADES_CLASSES))
    catalog, *_ = read_annotation_catalog(of, "LVST")
    with catalog:
        samples = [catalog.sample("LVST", number) for number in range(catalog.num_samples("LVST"))]
    assert {(one.text, one.start_s) for one in samples} == {("Taking some clothes", 0.1), ("Holding some clothes", 0.0)}
    assert [row.labels for row in read_annotations(of).rows] == [(0, 2), ()]


def lvu_file(tmp_path: Path) -> Path:
    rows = "0 way_home a tt0\n1 sit b tt1\n0 way_home c tt2\n"
    return written(tmp_path / "train.csv", LVU_HEADER + rows)


def test_lvu_is_trained_on_whole_videos_or_on_the_spans_that_evaluation_measures(tmp_path, media):
    """Training took whole videos and evaluation spans of 60 s, whatever was asked for."""
    whole = settings("lvu", lvu_file(tmp_path), media)
    catalog, *_ = read_annotation_catalog(whole, "LVST")
    with catalog:
        samples = [catalog.sample("LVST", number) for number in range(3)]
    assert {(one.source_id, one.start_s, one.end_s) for one in samples} == {(name, None, None) for name in "abc"}
    cut = whole.model_copy(update={"span_s": 0.4})
    catalog, _, videos = read_annotation_catalog(cut, "LVST", "classification")
    with catalog:
        samples = [catalog.sample("LVST", number) for number in range(catalog.num_samples("LVST"))]
        assert len({sample.key for sample in samples}) == 9
    found = sorted((one.source_id, one.text, one.start_s, one.end_s) for one in samples)
    thirds = [(0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1)]
    assert [one[:2] for one in found] == [
        (n, t) for n, t in (("a", "way_home"), ("b", "sit"), ("c", "way_home")) for _ in "123"
    ]
    assert np.array([one[2:] for one in found]) == pytest.approx(np.array(thirds * 3), abs=0.003)
    assert ["abc"[video] for video in videos] == [sample.source_id for sample in samples]
    a = MediaText("a", media / "a.mp4")
    assert [one.span for one in spans_of(a, 0.4)] == [Span(*one[2:]) for one in found[:3]]
    assert spans_of(a, None) == [a]


def test_a_video_whose_length_is_not_known_stays_a_sample_that_is_damaged(tmp_path, media):
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    (tmp_path / "b.mp4").write_bytes((media / "a.mp4").read_bytes())
    cut = settings("lvu", written(tmp_path / "train.csv", LVU_HEADER + "0 x a tt0\n1 y b tt1\n"), tmp_path, span_s=0.5)
    catalog, *_ = read_annotation_catalog(cut, "LVST")
    with catalog:
        batches = load(catalog, "LVST")
    assert sum(len(batch.keys) for batch in batches) == 2
    (damaged,) = [one for batch in batches for one in batch.damaged]
    assert damaged.reason.startswith("the video cannot be decoded")


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


@pytest.fixture(scope="module")
def sorted_classes(tmp_path_factory) -> AnnotationSettings:
    """40 class folders of 100 files that say nothing; read, they come sorted by class."""
    folder = tmp_path_factory.mktemp("classes")
    for label in range(40):
        (folder / f"class{label:02d}").mkdir()
        for number in range(100):
            (folder / f"class{label:02d}" / f"{label:02d}-{number}.jpg").touch()
    return settings("folders", folder)


def test_a_batch_of_classes_that_come_sorted_is_mixed_as_a_global_shuffle_mixes_it(sorted_classes):
    """A batch held the classes of a few neighbouring thousands of rows: of ImageNet-1k 27 where a shuffle gives 401."""
    catalog, *_ = read_annotation_catalog(sorted_classes, "IT")
    with catalog:
        labels = np.array([int(catalog.sample("IT", number).source_id[5:7]) for number in range(4000)])
        sizes = catalog.shard_sizes("IT")
    order = Order([Part("IT", sizes)], batch_size=50, window_shards=1)
    found = np.mean([len(set(labels[order.batch_of(step)].tolist())) for step in range(2 * order.steps_per_epoch)])
    by_chance = 40 * (1 - (1 - 50 / 4000) ** 100)
    assert found == pytest.approx(by_chance, abs=1)  # 28.6; of one shard as the files lie 10
    assert len(set(labels.tolist())) == 40


def test_samples_have_the_same_numbers_in_every_process(sorted_classes):
    script = """
import sys
from trainer.annotation_catalog import read_annotation_catalog
from trainer.data_settings import AnnotationSettings
catalog, *_ = read_annotation_catalog(AnnotationSettings(kind="folders", file=sys.argv[1]), "IT")
with catalog:
    print(*(catalog.sample("IT", number).key for number in range(0, 4000, 40)))
"""
    run = [
        subprocess.run(
            [sys.executable, "-c", script, sorted_classes.file],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        for seed in ("1", "2")
    ]
    assert run[0] == run[1]
    assert len(set(run[0])) == 100


def test_mixing_changes_neither_the_key_of_a_text_nor_that_first_texts_come_first(tmp_path, media):
    of = captions_of(tmp_path, media, {name: [f"{name} {number}" for number in range(9)] for name in "abc"})
    pairs = pairs_of(read_annotations(of))
    expected = {pair.text: key for pair, key in zip(pairs, keys_of(pairs), strict=True)}
    catalog, _, videos = read_annotation_catalog(of, "SVST")
    with catalog:
        samples = [catalog.sample("SVST", number) for number in range(27)]
    assert {sample.text: sample.key for sample in samples} == expected
    assert [sample.text.split()[1] for sample in samples] == [str(number) for number in range(9) for _ in "abc"]
    assert ["abc"[video] for video in videos] == [sample.source_id for sample in samples]


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
