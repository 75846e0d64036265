from __future__ import annotations

import json

import av
import numpy as np
import pytest

from gex_pipeline.demo.faults import FAULT_REASONS, plan_faults, usable_clips
from gex_pipeline.demo.stories import make_sources
from gex_pipeline.errors import Reason
from tests.demo.test_corpus import account, clip_path, lines, seconds


def fault(corpus, name):
    (found,) = [planted for planted in account(corpus)["faults"] if planted["fault"] == name]
    return found


def faulted_file(corpus, name):
    return corpus / fault(corpus, name)["files"][0]


def test_every_fault_is_accounted_for_with_a_reason_that_exists(corpus):
    planted = {one["fault"]: one["reason"] for one in account(corpus)["faults"]}
    assert planted == {name: reason and str(reason) for name, reason in FAULT_REASONS.items()}
    assert {reason for reason in planted.values() if reason} <= set(Reason)


@pytest.mark.parametrize("num_sources", [4, 5, 24, 100])
def test_the_first_group_falls_under_four_clips_and_no_other_does(num_sources):
    for seed in range(20):
        sources = make_sources(num_sources, seed, 12)
        faults = plan_faults(sources, seed)
        left = [len(usable_clips(sources, faults, index)) for index in range(num_sources)]
        assert left[0] == 3
        assert all(after >= min(4, len(source.clips)) for after, source in zip(left[1:], sources[1:], strict=True))
        lost = [(one.source, one.clips[0]) for one in faults if one.costs_its_clip]
        assert len(set(lost)) == len(lost) == 8


def test_the_truncated_file_opens_and_ends_early(corpus):
    path = faulted_file(corpus, "truncated_file")
    frames = 0
    with av.open(str(path)) as container:
        claimed = container.streams.video[0].frames
        try:
            for _ in container.decode(video=0):
                frames += 1
        except av.FFmpegError:
            pass
    assert 0 < frames < claimed


def test_the_missing_file_is_missing_and_the_empty_one_empty(corpus):
    assert not faulted_file(corpus, "missing_file").exists()
    assert faulted_file(corpus, "empty_file").stat().st_size == 0


def test_the_text_file_is_no_video(corpus):
    path = faulted_file(corpus, "text_file")
    assert path.read_text().startswith("<!doctype html>")
    with pytest.raises(av.InvalidDataError):
        av.open(str(path))


def test_the_spoiled_rows_are_spoiled_once_each(corpus):
    rows = lines(corpus / "clips.jsonl")
    assert sum("?" in row["Start_timestamp"] for row in rows) == 1
    assert sum(row["Start_timestamp"] > row["End_timestamp"] and "?" not in row["Start_timestamp"] for row in rows) == 1
    assert [row["YoutubeID"] for row in rows if not row["Caption"]] == [fault(corpus, "empty_caption")["YoutubeID"]]
    keys = [json.dumps(row) for row in rows]
    assert len(keys) - len(set(keys)) == 1 and keys[-1] in keys[:-1]
    assert rows[-1]["YoutubeID"] == fault(corpus, "duplicate_row")["YoutubeID"]


def test_one_row_claims_five_seconds_more_than_its_file_holds(corpus):
    path = faulted_file(corpus, "claims_too_much")
    (row,) = [row for row in lines(corpus / "clips.jsonl") if clip_path(corpus, row) == path]
    with av.open(str(path)) as container:
        held_s = float(container.streams.video[0].duration * container.streams.video[0].time_base)
    assert seconds(row["End_timestamp"]) - seconds(row["Start_timestamp"]) - held_s == pytest.approx(5.0, abs=1 / 12)


def test_the_source_of_mixed_sizes_has_two_sizes_among_its_usable_clips(corpus):
    mixed = fault(corpus, "mixed_sizes")
    widths = {}
    for path in sorted((corpus / "clips").glob(f"{mixed['YoutubeID']}_*.mp4")):
        try:
            with av.open(str(path)) as container:
                widths[f"clips/{path.name}"] = container.streams.video[0].width
        except av.InvalidDataError:
            continue
    assert [widths[file] for file in mixed["files"]] == [128, 128]
    assert set(np.unique(list(widths.values()))) == {128, 192}
