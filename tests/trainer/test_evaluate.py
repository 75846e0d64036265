from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from gex_pipeline.errors import GexError
from tests.trainer.by_hand import check_retrieval, places_by_hand, samples_of, text_of, unit, video_of
from tests.trainer.conftest import write_tiny_model
from tests.trainer.outputs import add_snapshot, make_numbered_output
from tests.trainer.test_sequence import ruin
from trainer.catalog import read_catalog
from trainer.evaluate import Options, PublishedData, chosen_numbers, evaluate_published, read_as
from trainer.frames import read_frames
from trainer.history import HeldOut
from trainer.media_reader import DamagedMediaError, MediaReader
from trainer.pretrained import Pretrained

NUM_SOURCES = 16


def figures_by_hand(pretrained, samples, num_frames, n_iter_video, n_iter_text):
    """Where truths stand, of texts and of videos; a text that several samples have being one."""
    videos, texts = [], []
    for sample in samples:
        try:
            videos.append(video_of(pretrained, sample, num_frames, n_iter_video))
            texts.append(sample.text)
        except DamagedMediaError:
            continue
    distinct = list(dict.fromkeys(texts))
    scores = unit([text_of(pretrained, text, n_iter_text) for text in distinct]) @ unit(videos).T
    right = np.array([[text == other for other in texts] for text in distinct])
    return places_by_hand(scores, right), places_by_hand(scores.T, right.T)


def same(evaluation, by_hand):
    for direction, places in zip(("text_to_video", "video_to_text"), by_hand, strict=True):
        check_retrieval(evaluation.figures[direction], places)


def evaluate(pretrained, output, *names, options=None, **data):
    return evaluate_published(
        pretrained, PublishedData(str(output), granularities=names, **data), options or Options(batch_size=8)
    )


def with_texts(output: Path, name: str, change) -> None:
    """Other texts in the receipts of a granularity."""
    for receipt in (output / name).glob("*.parquet"):
        table = pq.read_table(receipt)
        at = table.column_names.index("text")
        texts = [change(text) for text in table["text"].to_pylist()]
        pq.write_table(table.set_column(at, table.schema.field("text"), [texts]), receipt)


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    """No two videos of it are alike: between such a pair the last bit of a vector would decide."""
    return make_numbered_output(tmp_path_factory.mktemp("evaluate"), NUM_SOURCES)


@pytest.fixture
def copy(output, tmp_path) -> Path:
    """An output that may be changed."""
    return Path(shutil.copytree(output, tmp_path / "out"))


def test_figures_are_those_of_the_plain_model_each_granularity_read_as_it_was_trained(output, pretrained):
    found = evaluate(pretrained, output)
    assert sorted(one.read.granularity for one in found) == ["IT", "LVLT", "LVST"]
    for one in found:
        trained = pretrained.granularities[one.read.granularity]
        numbers = (trained.num_frames, trained.n_iter_video, trained.n_iter_text)
        assert (one.read.num_frames, one.read.n_iter_video, one.read.n_iter_text) == numbers
        same(one, figures_by_hand(pretrained, samples_of(output, one.read.granularity), *numbers))
        assert (one.task, one.num_samples, one.damaged, one.read.origin) == ("retrieval", NUM_SOURCES, (), "model")
        assert one.figures["chance_text_to_video"]["r1_percent"] == pytest.approx(100 / NUM_SOURCES)
        assert one.data["snapshot"] == 0


def test_iterations_and_frames_are_free_at_inference(output, pretrained):
    samples = samples_of(output, "LVST")
    options = Options(num_frames=2, n_iter_video=5, n_iter_text=0)
    (found,) = evaluate(pretrained, output, "LVST", options=options)
    same(found, figures_by_hand(pretrained, samples, 2, 5, 0))
    assert found.read.origin == "given"
    (usual,) = evaluate(pretrained, output, "LVST")
    assert usual.figures["text_to_video"]["mean_rank"] != found.figures["text_to_video"]["mean_rank"]


def test_frames_that_are_given_are_those_of_videos_and_images_keep_their_one(output, pretrained):
    found = evaluate(pretrained, output, "LVLT", "IT", options=Options(num_frames=2))
    assert {one.read.granularity: one.read.num_frames for one in found} == {"LVLT": 2, "IT": 1}


def test_samples_with_one_text_are_all_right_for_it(copy, pretrained):
    with_texts(copy, "LVST", lambda text: "in short" if int(text[5:7]) < 5 else text)
    (found,) = evaluate(pretrained, copy, "LVST")
    same(found, figures_by_hand(pretrained, samples_of(copy, "LVST"), 3, 3, 1))
    assert found.figures["text_to_video"]["num_queries"] == NUM_SOURCES - 4
    assert found.figures["num_shared_texts"] == 1
    assert found.num_samples == NUM_SOURCES


def test_damaged_samples_are_in_no_figure_and_named(copy, pretrained):
    keys = ruin(copy, "LVLT", 1, range(1, 3))
    (found,) = evaluate(pretrained, copy, "LVLT")
    same(found, figures_by_hand(pretrained, samples_of(copy, "LVLT"), 4, 3, 3))
    assert [one.key for one in found.damaged] == keys
    assert found.num_samples == found.figures["text_to_video"]["num_candidates"] == NUM_SOURCES - 2
    assert found.as_dict()["num_damaged"] == 2


def test_only_held_out_sources_are_measured_where_a_share_is_given(output, pretrained):
    (found,) = evaluate(pretrained, output, "LVST", held_out=(HeldOut(0.4, 2),))
    with read_catalog(str(output)) as catalog:
        part = catalog.split(0.4, 2).held_out
        samples = [part.sample("LVST", number) for number in range(part.num_samples("LVST"))]
    assert 2 <= len(samples) < NUM_SOURCES
    same(found, figures_by_hand(pretrained, samples, 3, 3, 1))
    assert (found.data["part"], found.data["held_out"]) == ("held out", [{"share": 0.4, "seed": 2}])
    assert "trained_on" not in found.data


def test_a_seed_chooses_the_samples_when_not_all_are_measured(output, pretrained):
    options = Options(max_samples=7, seed=1)
    numbers = chosen_numbers(NUM_SOURCES, options, "LVST")
    assert len(set(numbers)) == 7
    assert numbers == sorted(numbers)
    assert numbers != chosen_numbers(NUM_SOURCES, replace(options, seed=2), "LVST")
    samples = samples_of(output, "LVST")
    (found,) = evaluate(pretrained, output, "LVST", options=options)
    same(found, figures_by_hand(pretrained, [samples[number] for number in numbers], 3, 3, 1))
    assert (found.num_samples, found.data["num_chosen"], found.data["num_in_part"]) == (7, 7, NUM_SOURCES)
    assert chosen_numbers(7, options, "LVST") is None


def test_a_snapshot_is_measured_as_it_was(copy, pretrained, tmp_path):
    before = evaluate(pretrained, copy, "IT")[0]
    add_snapshot(copy, range(16, 20), tmp_path / "scratch")
    then = evaluate(pretrained, copy, "IT", snapshot=0)[0]
    now = evaluate(pretrained, copy, "IT")[0]
    assert (before.figures, before.data["snapshot"]) == (then.figures, then.data["snapshot"])
    assert (now.num_samples, now.data["snapshot"]) == (20, 1)


def test_workers_change_no_figure(output, pretrained):
    alone = evaluate(pretrained, output, "IT", options=Options(batch_size=4))[0]
    with_worker = evaluate(pretrained, output, "IT", options=Options(batch_size=4, num_workers=1))[0]
    assert alone.figures == with_worker.figures


def test_a_model_with_a_head_is_measured_by_its_accuracy(copy, tiny_clip_folder, tmp_path):
    names = ("dog", "cat", "bird")
    with_texts(copy, "LVST", lambda text: names[int(text[5:7]) % 3])
    classifier = Pretrained.from_pretrained(write_tiny_model(tmp_path / "model", tiny_clip_folder, names))
    (found,) = evaluate(classifier, copy, "LVST")
    samples = samples_of(copy, "LVST")
    head = classifier.classifier.head
    right = 0
    for sample in samples:
        frames = torch.from_numpy(read_frames(sample, 3, 32, MediaReader()))[None]
        with torch.inference_mode():
            right += names[int(head(classifier.model.pool_video(frames, 3)).argmax())] == sample.text
    assert found.task == "accuracy"
    assert found.figures["top1_percent"] == pytest.approx(100 * right / NUM_SOURCES)
    with pytest.raises(GexError, match=r"'a picture of .*' is none of the 3 classes"):
        evaluate(classifier, copy, "IT")


def test_texts_whose_end_is_not_read_are_counted_one_a_query(copy, pretrained):
    """Texts were cut to the 24 tokens of the text tower, and nothing said so."""
    long = "half 0 of a picture " * 12
    with_texts(copy, "LVST", lambda text: f"{text} {long}" if int(text[5:7]) < 5 else text)
    (found,) = evaluate(pretrained, copy, "LVST")
    assert (found.num_truncated_texts, found.as_dict()["num_truncated_texts"]) == (5, 5)
    with_texts(copy, "LVST", lambda text: long if long in text else text)
    (found,) = evaluate(pretrained, copy, "LVST")
    assert found.num_truncated_texts == 1
    assert found.figures["text_to_video"]["num_queries"] == NUM_SOURCES - 4


def test_a_granularity_is_read_as_given_as_trained_or_as_the_paper_has_it(pretrained):
    assert read_as(pretrained, "LVST", Options()).num_frames == 3
    svst = read_as(pretrained, "SVST", Options(n_iter_text=2))
    assert (svst.num_frames, svst.n_iter_video, svst.n_iter_text, svst.origin) == (16, 1, 2, "paper")
    assert svst.given == ("n_iter_text",)
    with pytest.raises(GexError, match=r"not trained on 'XL' \(it knows LVLT, LVST, IT\).*give n_iter_video$"):
        read_as(pretrained, "XL", Options(num_frames=4, n_iter_text=1))
    assert read_as(pretrained, "XL", Options(4, 0, 1)).origin == "given"


def test_a_granularity_without_a_held_out_sample_is_left_out_with_a_line_and_one_that_is_named_is_refused(
    tmp_path, pretrained
):
    """One such granularity ended everything, with advice to take a share that the model was trained on."""
    output = make_numbered_output(tmp_path, 16)
    with read_catalog(str(output)) as catalog:
        split = catalog.split(0.5)
        inside, held_out = split.training.sample("IT", 0).source_id, split.held_out
        gone = {held_out.sample("IT", number).source_id for number in range(held_out.num_samples("IT"))}
    for receipt in (output / "IT").glob("*.parquet"):
        table = pq.read_table(receipt)
        rows = [
            {**row, "segments": [{**one, "source_id": inside} for one in row["segments"]]}
            if row["source_id"] in gone
            else row
            for row in table.to_pylist()
        ]
        pq.write_table(pa.Table.from_pylist(rows, table.schema), receipt)
    with read_catalog(str(output)) as catalog:
        assert not catalog.split(0.5).held_out.num_samples("IT")
    trained = {"data": str(output), "held_out_share": 0.5, "held_out_seed": 0}
    model, told = replace(pretrained, trained=trained), []
    data = PublishedData(str(output), held_out=(HeldOut(0.5),))
    found = evaluate_published(model, data, Options(batch_size=8), told.append)
    assert sorted(one.read.granularity for one in found) == ["LVLT", "LVST"]
    assert told == ["IT is left out: it has no sample of a held-out source"]
    with pytest.raises(GexError, match=r"IT has no sample .*own split \(share 0.5, seed 0\).*--held-out 0` takes"):
        evaluate(model, output, "LVLT", "IT", held_out=(HeldOut(0.5),))
    with pytest.raises(GexError, match=r"LVLT, LVST, IT have no sample of a held-out source; take a larger share"):
        evaluate(model, output, held_out=(HeldOut(0.0001),))


def test_what_is_measured_needs_no_sample_to_train_on(copy, pretrained):
    """A split was refused for what it would leave to a training that nobody asked for, and nothing was measured."""
    (one,) = evaluate(pretrained, copy, "LVLT", held_out=(HeldOut(0.9999),))
    assert (one.num_samples, one.data["num_in_part"]) == (NUM_SOURCES, NUM_SOURCES)
    with read_catalog(str(copy)) as catalog:
        split = catalog.split(0.5)
        sources = [part.sample("IT", 0).source_id for part in (split.training, split.held_out)]
    for receipt in (copy / "IT").glob("*.parquet"):  # every image of clips of both sides
        table = pq.read_table(receipt)
        rows = [
            {**row, "segments": [{**row["segments"][0], "source_id": source} for source in sources]}
            for row in table.to_pylist()
        ]
        pq.write_table(pa.Table.from_pylist(rows, table.schema), receipt)
    told = []
    data = PublishedData(str(copy), held_out=(HeldOut(0.5),))
    found = evaluate_published(pretrained, data, Options(batch_size=8), told.append)
    assert sorted(one.read.granularity for one in found) == ["LVLT", "LVST"]
    assert told == ["IT is left out: it has no sample of a held-out source"]
    with pytest.raises(GexError, match="IT has no sample of a held-out source; take a larger share"):
        evaluate(pretrained, copy, "IT", held_out=(HeldOut(0.5),))


def test_data_sets_that_give_nothing_to_measure_are_refused(output, copy, pretrained, tmp_path):
    with pytest.raises(GexError, match=r"no data set is published at .*nothing'"):
        evaluate(pretrained, tmp_path / "nothing")
    with pytest.raises(GexError, match="has no snapshot 3; published are 0"):
        evaluate(pretrained, output, "IT", snapshot=3)
    with pytest.raises(GexError, match="has no granularity 'SVST'; published are"):
        evaluate(pretrained, output, "SVST")
    other = replace(pretrained, granularities={"XL": pretrained.granularities["IT"]})
    with pytest.raises(GexError, match=r"none of the granularities that the model was trained on \(XL\)"):
        evaluate(other, output)
    with pytest.raises(GexError, match="LVST has no sample of a held-out source; take a larger share"):
        evaluate(pretrained, output, "LVST", held_out=(HeldOut(0.0001),))
    for shard in range(4):
        ruin(copy, "IT", shard, range(4))
    with pytest.raises(GexError, match="none of 3 samples of IT can be read; the first are"):
        evaluate(pretrained, copy, "IT", options=Options(max_samples=3))
