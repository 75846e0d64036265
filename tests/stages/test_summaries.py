"""Long texts on their way to the summariser; whole stages of summaries are in tests/end_to_end."""

from __future__ import annotations

import tracemalloc

import pytest

from gex_pipeline.shard_format import make_key
from gex_pipeline.stages import summaries
from gex_pipeline.stages.summaries import _Texts
from gex_pipeline.tables import Database

NUM, DONE = 5000, 40


@pytest.fixture
def texts():
    """5000 long texts of two captions, 40 of them with a result."""
    with Database(threads=1) as database:
        database.execute(
            "CREATE TEMP TABLE samples AS SELECT md5(i::VARCHAR) AS key, 'v' || i AS source_id, "
            "'one. two ' || i AS text, 'digest ' || i AS text_digest, [{'text': 'one.'}, {'text': 'two ' || i}] "
            "AS segments, 'LVLT.tar' AS media_uri, i AS media_offset_bytes, 7 AS media_size_bytes, "
            f"'mp4' AS media_extension FROM range({NUM}) AS r(i)"
        )
        database.execute("CREATE TEMP TABLE settled (id VARCHAR)")
        database.execute("CREATE TEMP TABLE barred (id VARCHAR)")
        database.run("summarise_texts", granularity="LVST")
        database.execute(f"CREATE TEMP TABLE parts AS SELECT key FROM long_texts WHERE clip_rank <= {DONE}")
        yield _Texts(database)


def test_texts_without_a_result_are_asked_for_in_the_order_of_their_keys(texts):
    asked = list(texts.requests())
    assert texts.num_texts == len(asked) == NUM - DONE
    assert [request.key for request in asked] == sorted({request.key for request in asked})
    rows = [texts.take(request.key) for request in asked]
    assert all(request.key == make_key("LVST", [row["parent_id"]]) for request, row in zip(asked, rows, strict=True))
    assert sorted(row["clip_rank"] for row in rows) == list(range(DONE + 1, NUM + 1))
    number = asked[0].text.removeprefix("one. two ")
    assert (asked[0].captions, asked[0].source_digest) == (("one.", f"two {number}"), f"digest {number}")
    assert (rows[0]["source_id"], rows[0]["media_offset_bytes"]) == (f"v{number}", int(number))


def test_texts_whose_results_are_there_are_not_in_memory(texts, monkeypatch):
    monkeypatch.setattr(summaries, "_TEXTS_READ", 256)

    def most_bytes(*, taken):
        tracemalloc.start()
        for request in texts.requests():
            if taken:
                texts.take(request.key)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    assert most_bytes(taken=True) < most_bytes(taken=False) / 4
