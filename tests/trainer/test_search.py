"""What search finds is what comparing with every vector finds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from trainer.catalog import read_catalog
from trainer.embed import Counted, embed_dataset
from trainer.search import Match, Shown, encoded_blocks, frames_of, sheet, stored_blocks, top_matches
from trainer.vectors import Block, VectorFile

NUM, DIM = 103, 8


@pytest.fixture
def vectors():
    drawn = np.random.default_rng(1).standard_normal((NUM, DIM)).astype(np.float32)
    drawn[50:60] = drawn[40]  # equal scores
    return drawn


def blocks_of(vectors, size):
    for first in range(0, len(vectors), size):
        numbers = np.arange(len(vectors))[first : first + size]
        yield Block(numbers, [f"k{number}" for number in numbers], vectors[first : first + size])


@pytest.mark.parametrize("size", [1, 10, 200])
@pytest.mark.parametrize("num", [1, 7, 500])
def test_the_order_is_that_of_brute_force(vectors, size, num):
    query = vectors[40]
    found = top_matches(blocks_of(vectors, size), query, num)
    order = sorted(range(NUM), key=lambda row: (-float((vectors[row : row + 1] @ query)[0]), row))[:num]
    # sums in blocks of other sizes differ in their last digit, which matters to no order but that of equal vectors
    assert [vectors[match.number].tolist() for match in found] == [vectors[row].tolist() for row in order]
    assert len(found) == min(num, NUM) and all(match.key == f"k{match.number}" for match in found)


def test_of_equal_scores_the_first_samples_win(vectors):
    same = np.tile(vectors[:1], (20, 1))
    assert [match.number for match in top_matches(blocks_of(same, 20), vectors[0], 3)] == [0, 1, 2]


def test_no_match_is_asked_for(vectors):
    with pytest.raises(ValueError, match="num is 0"):
        top_matches(blocks_of(vectors, 10), vectors[0], 0)


def test_stored_vectors_and_videos_encoded_now_give_the_same_matches(
    pretrained, tiny_model_folder, numbered_output, tmp_path
):
    query = pretrained.encode_texts(["a picture of 3"], 3).numpy()[0]
    with read_catalog(str(numbered_output), granularities=["LVLT"]) as catalog:
        embed_dataset(pretrained, str(tiny_model_folder), catalog, str(tmp_path / "v.parquet"))
        stored, now = Counted(), Counted()
        file = VectorFile(tmp_path / "v.parquet", "v")
        first = top_matches(stored_blocks(file, "LVLT", stored), query, 18)
        second = top_matches(encoded_blocks(pretrained, catalog, "LVLT", now), query, 18)
    assert stored.num_rows == now.num_rows == 18 and now.damaged == []
    assert {match.number for match in first} == set(range(18))
    assert [match.score for match in first] == pytest.approx([match.score for match in second], abs=1e-6)
    by_number = {match.number: match for match in second}
    assert all(by_number[match.number].score == pytest.approx(match.score, abs=1e-6) for match in first)


def test_a_sheet_has_a_row_a_match_also_where_a_video_cannot_be_shown(numbered_output):
    with read_catalog(str(numbered_output)) as catalog:
        good, image = catalog.sample("LVLT", 0), catalog.sample("IT", 0)
    damaged = dataclasses.replace(good, media_size_bytes=10)
    samples = [(Match(0.5, number, one.key), one) for number, one in enumerate((good, image, damaged))]
    rows = frames_of(samples)
    assert [None if row.frames is None else len(row.frames) for row in rows] == [4, 1, None]
    assert rows[2].damage
    one, three = sheet("a query", "facts", rows[:1]), sheet("a query", "facts", rows)
    assert (three.height - one.height, three.width) == (2 * 204, one.width)
    x, y = 32 + 92, one.height - 16 - 204 + 14
    assert np.array_equal(np.asarray(one)[y : y + 176, x : x + 176], rows[0].frames[0].transpose(1, 2, 0))
    assert isinstance(rows[0], Shown)
