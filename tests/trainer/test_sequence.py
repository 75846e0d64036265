from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from gex_pipeline.errors import GexError
from tests.trainer.outputs import numbers_of
from trainer.catalog import read_catalog
from trainer.loader import Damaged
from trainer.sequence import Reading, SequenceLoader

SMALL = Reading(num_frames=3, image_size_px=48, batch_size=4)


@pytest.fixture
def damaged(numbered_output, tmp_path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(numbered_output, tmp_path / "out"))


def ruin(output: Path, name: str, shard: int, rows: range) -> list[str]:
    """Overwrite media of some samples in their tar; their keys."""
    found = pq.read_table(output / name / f"{name}-{shard:06d}.parquet").to_pylist()[rows.start : rows.stop]
    for row in found:
        with (output / row["media_uri"]).open("r+b") as tar:
            tar.seek(row["media_offset_bytes"])
            tar.write(bytes(row["media_size_bytes"]))
    return [row["key"] for row in found]


def load(output, name="LVLT", reading=SMALL, numbers=None, side="training", share=0.0):
    with read_catalog(str(output)) as catalog:
        part = getattr(catalog.split(share), side)
        with SequenceLoader(part, name, reading, numbers) as loader:
            return list(loader)


def test_every_sample_comes_once_in_the_order_of_the_numbers_with_its_frames_and_text(numbered_output):
    batches = load(numbered_output)
    assert [len(batch.keys) for batch in batches] == [4, 4, 4, 4, 2]
    assert [number for batch in batches for number in batch.numbers] == list(range(18))
    with read_catalog(str(numbered_output)) as catalog:
        samples = [catalog.sample("LVLT", number) for number in range(18)]
    assert [key for batch in batches for key in batch.keys] == [sample.key for sample in samples]
    assert [text for batch in batches for text in batch.texts] == [sample.text for sample in samples]
    for batch in batches:
        assert batch.damaged == []
        assert batch.frames_BT3HW.dtype == torch.uint8
        for number, frames in zip(batch.numbers, batch.frames_BT3HW, strict=True):
            which = int(samples[number].source_id.removeprefix("video"))
            assert numbers_of(frames.numpy()) == [(which % 16, frame) for frame in (2, 6, 10)]


@pytest.mark.parametrize(
    ("name", "number", "least"),
    [("num_frames", 0, 1), ("image_size_px", -1, 1), ("batch_size", 0, 1), ("num_workers", -1, 0)],
)
def test_a_number_that_nothing_can_be_read_with_is_refused_by_name(name, number, least):
    """No frames at all were a division by zero, deep in the reading of a video."""
    with pytest.raises(ValueError, match=f"{name} is {number}; expected {least} or more"):
        Reading(**{"num_frames": 3, "image_size_px": 32, name: number})


def test_numbers_choose_samples_and_their_order(numbered_output):
    batches = load(numbered_output, numbers=[7, 2, 11, 2, 0])
    assert [batch.numbers for batch in batches] == [[7, 2, 11, 2], [0]]
    everything = load(numbered_output, numbers=None)
    keys = [key for batch in everything for key in batch.keys]
    assert batches[0].keys == [keys[7], keys[2], keys[11], keys[2]]
    with pytest.raises(IndexError, match="sample 18 of LVLT; there are 18"):
        load(numbered_output, numbers=[3, 18])
    assert load(numbered_output, numbers=[]) == []


def test_numbers_are_those_of_the_part_and_not_of_the_catalogue(numbered_output):
    held_out = load(numbered_output, side="held_out", share=0.3)
    training = load(numbered_output, side="training", share=0.3)
    for batches in (held_out, training):
        numbers = [number for batch in batches for number in batch.numbers]
        assert numbers == list(range(len(numbers)))
    keys = [{key for batch in batches for key in batch.keys} for batches in (held_out, training)]
    assert keys[0]
    assert not keys[0] & keys[1]
    assert len(keys[0] | keys[1]) == 18


def test_two_workers_give_what_none_give_and_are_gone_afterwards(damaged):
    ruin(damaged, "LVLT", 1, range(1, 3))
    alone = load(damaged)
    with read_catalog(str(damaged)) as catalog:
        part = catalog.split(0).training
        with SequenceLoader(part, "LVLT", Reading(3, 48, batch_size=4, num_workers=2)) as loader:
            theirs = [next(loader)]
            assert len(multiprocessing.active_children()) == 2
            theirs += loader
    assert not multiprocessing.active_children()
    assert len(alone) == len(theirs) == 5
    for mine, other in zip(alone, theirs, strict=True):
        assert (mine.numbers, mine.keys, mine.texts, mine.damaged) == (
            other.numbers,
            other.keys,
            other.texts,
            other.damaged,
        )
        assert torch.equal(mine.frames_BT3HW, other.frames_BT3HW)


def test_damaged_samples_are_left_out_and_named_and_a_batch_of_them_is_empty(damaged):
    keys = ruin(damaged, "LVLT", 0, range(4)) + ruin(damaged, "LVLT", 1, range(2, 3))
    batches = load(damaged)
    assert [len(batch.keys) for batch in batches] == [0, 3, 4, 4, 2]
    assert batches[0].frames_BT3HW.shape == (0, 3, 3, 48, 48)
    assert batches[1].numbers == [4, 5, 7]
    named = [one for batch in batches for one in batch.damaged]
    assert [one.key for one in named] == keys
    assert all("the video cannot be decoded" in one.reason for one in named)


def test_a_sample_without_text_is_damaged_unless_texts_are_not_needed(damaged):
    receipt = damaged / "IT" / "IT-000000.parquet"
    table = pq.read_table(receipt)
    texts = [" \n" if number == 1 else text for number, text in enumerate(table["text"].to_pylist())]
    at = table.column_names.index("text")
    pq.write_table(table.set_column(at, table.schema.field("text"), [texts]), receipt)
    first = load(damaged, "IT", Reading(1, 48, batch_size=4))[0]
    assert first.damaged == [Damaged(table["key"][1].as_py(), "its text is empty")]
    assert first.numbers == [0, 2, 3]
    assert load(damaged, "IT", Reading(1, 48, batch_size=4, needs_text=False))[0].numbers == [0, 1, 2, 3]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_storage_that_fails_ends_with_a_sentence_and_not_with_damaged_samples(damaged, num_workers):
    tar = damaged / "IT" / "IT-000001.tar"
    tar.unlink()
    tar.mkdir()  # there is something, and it cannot be read
    with pytest.raises(GexError, match=r"IT-000001\.tar"):
        load(damaged, "IT", Reading(1, 48, batch_size=4, num_workers=num_workers))
    assert not multiprocessing.active_children()


def test_a_killed_worker_ends_with_a_sentence(numbered_output):
    with read_catalog(str(numbered_output)) as catalog:
        part = catalog.split(0).training
        numbers = [number % 18 for number in range(2000)]
        with SequenceLoader(part, "IT", Reading(1, 48, batch_size=2, num_workers=1), numbers) as loader:
            next(loader)
            (worker,) = multiprocessing.active_children()
            os.kill(worker.pid, signal.SIGKILL)
            with pytest.raises(GexError, match=r"the workers that read IT stopped: .*exited"):
                list(loader)
            with pytest.raises(StopIteration):
                next(loader)
    assert not multiprocessing.active_children()


def test_several_frames_of_an_image_are_refused(numbered_output):
    with pytest.raises(GexError, match="IT holds images, of which 3 frames are asked"):
        load(numbered_output, "IT")
