from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gex_pipeline import storage
from gex_pipeline.errors import GexError, Reason
from gex_pipeline.summarize.cache import ResponseCache
from gex_pipeline.summarize.request import SummaryAnswer


def answer(number: int) -> SummaryAnswer:
    return SummaryAnswer(
        request_digest=f"{number:064x}",
        key=f"k{number}",
        source_digest="s" * 64,
        raw_text=f"a dog runs {number} times",
        num_prompt_tokens=10,
        num_generated_tokens=5,
        finish="stop",
        seconds=0.5,
    )


def test_what_was_added_is_found_by_another_cache_over_the_same_folder(tmp_path: Path) -> None:
    ResponseCache(str(tmp_path)).add([answer(1), answer(2)])
    ResponseCache(str(tmp_path)).add([answer(3)])
    found = ResponseCache(str(tmp_path)).lookup([answer(n).request_digest for n in (1, 3, 9)])
    assert found == {answer(n).request_digest: answer(n) for n in (1, 3)}
    assert len(list(tmp_path.glob("part-*.parquet"))) == 2


def test_a_part_added_later_is_seen_by_an_open_cache(tmp_path: Path) -> None:
    cache = ResponseCache(str(tmp_path))
    cache.add([answer(1)])
    assert cache.lookup([answer(2).request_digest]) == {}
    ResponseCache(str(tmp_path)).add([answer(2)])
    assert cache.lookup([answer(2).request_digest])[answer(2).request_digest] == answer(2)
    assert cache.lookup([answer(1).request_digest])[answer(1).request_digest] == answer(1)


def test_later_only_the_parts_that_hold_what_is_wanted_are_read_again(tmp_path: Path, monkeypatch) -> None:
    for number in range(20):
        ResponseCache(str(tmp_path)).add([answer(number), answer(number + 100)])
    read: list[str] = []
    copied = storage.local_copy
    monkeypatch.setattr(storage, "local_copy", lambda uri, *more: read.append(uri) or copied(uri, *more))
    cache = ResponseCache(str(tmp_path))
    assert cache.lookup([answer(3).request_digest]) == {answer(3).request_digest: answer(3)}
    assert (len(read), len(set(read))) == (20, 20)
    assert cache.lookup([answer(99).request_digest]) == {}
    assert len(read) == 20
    wanted = [answer(number).request_digest for number in (3, 103, 7)]
    assert set(cache.lookup(wanted)) == set(wanted)
    assert len(read) == 22


def test_errors_are_not_kept(tmp_path: Path) -> None:
    cache = ResponseCache(str(tmp_path))
    cache.add([replace(answer(1), error="boom", error_kind=Reason.engine_error)])
    assert list(tmp_path.iterdir()) == []
    cache.add([replace(answer(1), error="boom"), answer(2)])
    assert list(cache.lookup([answer(n).request_digest for n in (1, 2)])) == [answer(2).request_digest]


def test_the_same_answers_make_the_same_part_and_nothing_else_lies_there(tmp_path: Path) -> None:
    for _ in range(2):
        ResponseCache(str(tmp_path)).add([answer(1)])
    assert len(list(tmp_path.iterdir())) == 1


def test_an_empty_or_missing_folder_knows_nothing(tmp_path: Path) -> None:
    cache = ResponseCache(str(tmp_path / "none"))
    assert cache.lookup([answer(1).request_digest]) == {}
    assert cache.lookup([]) == {}


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    ResponseCache(str(tmp_path)).add([answer(1)])
    (part,) = tmp_path.iterdir()
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(GexError, match=f"{part.name}.*damaged.*delete that file and run again"):
        ResponseCache(str(tmp_path)).lookup([answer(1).request_digest])
