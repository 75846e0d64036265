"""The paper's recipe, looked at from every side: counts, texts, lineage, scores, and readers that are not ours."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import time
from itertools import pairwise

import av
import pytest
from PIL import Image

from tests.end_to_end.paper import paper_recipe
from tests.end_to_end.running import expand_to, frames_of, metadata_of, rows_of, sums, write_recipe

CLIPS = {"lzm8v_D9W90": 4, "-whkHrSQl47": 8, "zidFQNXBVCi": 7, "FIfI749p1zA": 2, "VFJ82b2k5x_": 5}
LONG = {source: count for source, count in CLIPS.items() if count >= 4}


def seconds(timestamp: str) -> float:
    hours, minutes, rest = timestamp.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def test_every_granularity_has_the_samples_that_the_clips_give(paper_output):
    assert paper_output.granularities == ["SVST", "LVLT", "LVST", "IT"]
    assert {name: len(paper_output.samples(name)) for name in paper_output.granularities} == {
        "SVST": 26,
        "LVLT": 4,
        "LVST": 4,
        "IT": 26,
    }
    assert {source: len(row["parents"]) for source, row in paper_output.by_source("LVLT").items()} == LONG
    assert paper_output.account("LVLT")["excluded"] == {"too_few_clips": 2}


def test_totals_of_the_manifest_are_those_of_the_samples(paper_output):
    for name, entry in paper_output.last["granularities"].items():
        samples, totals = paper_output.samples(name), entry["totals"]
        assert totals["samples"] == len(samples)
        assert totals["shards"] == len(entry["shards"]) == -(-len(samples) // 2)
        assert totals["bytes"] == sum(path.stat().st_size for path in paper_output.tars(name))
        assert totals["duration_s"] == pytest.approx(sum(row["duration_s"] for row in samples), abs=1e-6)
        assert totals["words"] == sum(len(row["text"].split()) for row in samples)
    drawn_s = sum(
        seconds(row["End_timestamp"]) - seconds(row["Start_timestamp"])
        for row in metadata_of_output(paper_output)
        if CLIPS[row["YoutubeID"]] >= 4
    )
    assert paper_output.last["granularities"]["LVLT"]["totals"]["duration_s"] == pytest.approx(drawn_s, abs=1e-3)
    assert paper_output.last["granularities"]["LVLT"]["totals"]["copied"] == 4


def test_the_timeline_has_every_stage_and_every_shard_with_its_bytes(paper_output):
    rows = rows_of(paper_output.folder / "tables/timeline-000000.parquet")
    assert "tables/timeline-000000.parquet" in paper_output.last["tables"]
    stages = [(row["stage"], row["granularity"]) for row in rows if row["shard"] is None]
    expected = [(stage, name) for name in paper_output.granularities for stage in ("plan", "build")]
    expected.insert(expected.index(("plan", "LVST")), ("summarise", "LVST"))
    assert stages == [("ingest", None), *expected, ("publish", None)]
    for name, entry in paper_output.last["granularities"].items():
        shards = [row for row in rows if row["shard"] is not None and row["granularity"] == name]
        assert sorted(row["shard"] for row in shards) == list(range(len(entry["shards"])))
        assert sum(row["bytes_written"] for row in shards) == entry["totals"]["bytes"]
        assert sum(row["num_samples"] for row in shards) == entry["totals"]["samples"]
        assert all(0 < row["cpu_s"] < 60 and 0 < row["seconds"] < 60 for row in shards)
        (build,) = [
            row for row in rows if row["shard"] is None and (row["stage"], row["granularity"]) == ("build", name)
        ]
        ends = max(row["started_s"] + row["seconds"] for row in shards)
        assert build["started_s"] <= min(row["started_s"] for row in shards)
        assert ends <= build["started_s"] + build["seconds"] + 0.1
    assert all(row["is_complete"] for row in rows)


def test_what_ray_holds_is_counted_by_cpus_and_seconds_and_what_others_held_before_is_not(running, monkeypatch):
    import ray

    from gex_pipeline import ray_usage
    from gex_pipeline.ray_usage import Held

    monkeypatch.setattr(ray_usage, "_OTHERS", {"CPU": 0.0, "GPU": 0.0})

    @ray.remote(num_cpus=0.5)
    class Holder:
        def here(self):
            return True

    started_s = time.monotonic()
    with Held() as held:
        holder = Holder.remote()
        ray.get(holder.here.remote())
        up_s = time.monotonic()
        time.sleep(2.5)
    ended_s = time.monotonic()
    ray_usage.leave_out_others()
    with Held() as besides:
        time.sleep(1.2)
    ray.kill(holder)
    assert 0.5 * (ended_s - up_s) - 0.6 <= held.cpu_s <= 0.5 * (ended_s - started_s) + 0.1
    assert (held.gpu_s, besides.cpu_s) == (0, 0)


def metadata_of_output(output):
    return output.table("clips")


def test_a_long_text_is_the_captions_in_time_order(paper_output):
    rows = sorted(metadata_of_output(paper_output), key=lambda row: seconds(row["Start_timestamp"]))
    for source, sample in paper_output.by_source("LVLT").items():
        captions = [row["Caption"] for row in rows if row["YoutubeID"] == source]
        assert not any(caption.endswith(".") for caption in captions)
        assert sample["text"] == " ".join(f"{caption}." for caption in captions)
        assert [segment["text"] for segment in sample["segments"]] == captions


def test_segments_cover_the_video_and_say_where_they_come_from(paper_output):
    for source, sample in paper_output.by_source("LVLT").items():
        segments = sample["segments"]
        assert [segment["source_id"] for segment in segments] == [source] * len(segments)
        assert [segment["clip_id"] for segment in segments] == sample["parents"]
        assert segments[0]["offset_s"] == 0
        for one, following in pairwise(segments):
            assert following["offset_s"] == pytest.approx(one["offset_s"] + one["duration_s"], abs=2e-6)
            assert one["start_s"] < following["start_s"]
        for segment in segments:
            assert segment["duration_s"] == pytest.approx(segment["end_s"] - segment["start_s"], abs=1e-3)
        last = segments[-1]
        assert sample["duration_s"] == pytest.approx(last["offset_s"] + last["duration_s"], abs=2e-6)


def test_a_summary_has_the_video_of_its_long_text_and_carries_its_digest(paper_output):
    long_videos, long_samples = paper_output.members("LVLT"), paper_output.samples("LVLT")
    short_videos = paper_output.members("LVST")
    by_key = {row["key"]: row for row in long_samples}
    for row in paper_output.samples("LVST"):
        (parent,) = row["parents"]
        assert short_videos[row["key"]]["mp4"] == long_videos[parent]["mp4"]
        assert row["source_text_digest"] == hashlib.sha256(by_key[parent]["text"].encode()).hexdigest()
        assert 5 <= len(row["text"].split()) <= 30
        assert len(row["text"]) < len(by_key[parent]["text"])
        content = json.loads(short_videos[row["key"]]["json"])
        assert content["source_text_digest"] == row["source_text_digest"]
        assert content["text_digest"] == hashlib.sha256(row["text"].encode()).hexdigest()
        assert content["segments"] == by_key[parent]["segments"]


def test_the_scores_are_in_the_table_and_in_every_sample(paper_output):
    everywhere = {
        "rouge1",
        "rouge2",
        "rougeL",
        "sentence_cosine",
        "bertscore_precision",
        "bertscore_recall",
        "bertscore_f1",
        "clip_text_cosine",
    }
    with_video = everywhere | {"clip_video_long_text", "clip_video_short_text"}
    table = rows_of(paper_output.folder / "tables/scores-LVST-000000.parquet")
    by_key: dict[str, dict[str, float]] = {}
    for row in table:
        assert row["state"] == "accepted"
        by_key.setdefault(row["key"], {})[row["score"]] = row["value"]
    samples = paper_output.samples("LVST")
    names = sorted(map(set, by_key.values()), key=len)
    assert names == [everywhere, everywhere, with_video, with_video]  # clip_videos = 2 of the four
    members = paper_output.members("LVST")
    for sample in samples:
        assert json.loads(sample["scores"]) == by_key[sample["key"]]
        assert json.loads(members[sample["key"]]["json"])["scores"] == by_key[sample["key"]]
        assert 0.5 <= by_key[sample["key"]]["sentence_cosine"] <= 1
        assert all(-1 <= value <= 1 for value in by_key[sample["key"]].values())


def test_summaries_say_who_made_them_from_which_text(paper_output):
    rows = rows_of(paper_output.folder / "tables/summaries-LVST-000000.parquet")
    assert {row["key"] for row in rows} == {row["key"] for row in paper_output.samples("LVST")}
    assert {row["backend"] for row in rows} == {"extractive"}
    digests = {row["key"]: row["text_digest"] for row in paper_output.samples("LVLT")}
    assert all(row["source_digest"] == digests[row["parent_id"]] for row in rows)


def test_a_picture_is_the_middle_frame_of_its_clip(paper_output, corpus):
    members = paper_output.members("IT")
    clips = {row["clip_id"]: row for row in paper_output.table("clips")}
    for row in paper_output.samples("IT")[:4]:
        clip = clips[row["parents"][0]]
        assert row["text"] == clip["Caption"]
        shown = Image.open(io.BytesIO(members[row["key"]]["jpg"])).convert("RGB")
        frames = [Image.fromarray(frame) for frame in frames_of(corpus / "clips" / clip["media_uri"].rsplit("/", 1)[1])]
        assert shown.size == (192, 144)
        distances = [mean_difference(shown, frame) for frame in frames]
        middle = (len(frames) - 1) // 2, len(frames) // 2
        # The nearest frame is a middle one; where nothing moves several are equally near.
        assert min(distances[index] for index in middle) <= min(distances) + 0.3
        assert min(distances) < 4


def mean_difference(one, other):
    import numpy as np

    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


def test_keys_have_no_dot_and_are_the_same_as_their_lineage(paper_output):
    for name in paper_output.granularities:
        for row in paper_output.samples(name):
            assert re.fullmatch("[0-9a-f]{32}", row["key"])
            lineage = "\n".join([name, *row["parents"]]).encode()
            assert row["key"] == hashlib.sha256(lineage).hexdigest()[:32]


def test_webdataset_reads_the_shards_without_code_of_ours(paper_output):
    import webdataset

    for name, extension in (("SVST", "mp4"), ("LVLT", "mp4"), ("LVST", "mp4"), ("IT", "jpg")):
        urls = [str(path) for path in paper_output.tars(name)]
        samples = list(webdataset.WebDataset(urls, shardshuffle=False))
        by_key = {row["key"]: row for row in paper_output.samples(name)}
        assert sorted(sample["__key__"] for sample in samples) == sorted(by_key)
        for sample in samples:
            row = by_key[sample["__key__"]]
            assert {key for key in sample if not key.startswith("__")} == {extension, "txt", "json"}
            assert sample["txt"].decode() == row["text"]
            assert json.loads(sample["json"])["source_id"] == row["source_id"]
        first = samples[0]
        if extension == "mp4":
            num_frames = len(frames_of(first["mp4"]))
            assert num_frames == pytest.approx(by_key[first["__key__"]]["duration_s"] * 12, abs=0.01)


def test_wids_reads_the_shards_by_an_index_out_of_the_manifest(paper_output, tmp_path):
    wids = pytest.importorskip("wids")
    shards = paper_output.shards("LVLT")
    index = {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "shardlist": [
            {"url": str(paper_output.folder / shard["path"]), "nsamples": shard["num_samples"]} for shard in shards
        ],
    }
    (tmp_path / "index.json").write_text(json.dumps(index))
    dataset = wids.ShardListDataset(str(tmp_path / "index.json"), cache_dir=str(tmp_path / "cache"), transformations=[])
    assert len(dataset) == 4
    by_key = {row["key"]: row for row in paper_output.samples("LVLT")}
    seen = set()
    for index in range(4):
        sample = dataset[index]
        row = by_key[sample["__key__"]]
        assert sample[".txt"].read().decode() == row["text"]
        with av.open(sample[".mp4"]) as container:
            assert sum(1 for _ in container.decode(video=0)) == round(row["duration_s"] * 12)
        seen.add(sample["__key__"])
    assert seen == set(by_key)


def open_clip_dataset_size(urls: str) -> tuple[int, int]:
    """What open_clip's `get_dataset_size` does with sizes.json."""
    from braceexpand import braceexpand

    shards = [shard for url in urls.split("::") for shard in braceexpand(url)]
    with open(os.path.join(os.path.dirname(shards[0]), "sizes.json")) as file:  # noqa: PTH118,PTH120,PTH123
        sizes = json.load(file)
    return sum(int(sizes[os.path.basename(shard)]) for shard in shards), len(shards)  # noqa: PTH119


def test_open_clip_finds_the_number_of_samples_beside_the_shards(paper_output):
    folder = paper_output.folder
    assert open_clip_dataset_size(f"{folder}/IT/IT-{{000000..000012}}.tar") == (26, 13)
    assert open_clip_dataset_size(f"{folder}/LVLT/LVLT-000000.tar::{folder}/LVLT/LVLT-000001.tar") == (4, 2)
    for name in paper_output.granularities:
        sizes = json.loads((folder / name / "sizes.json").read_text())
        assert sizes == {path.name: shard["num_samples"] for path, shard in zip(
            paper_output.tars(name), paper_output.shards(name), strict=True)}  # fmt: skip


def test_nothing_lies_about_that_the_manifest_does_not_name(paper_output):
    folder = paper_output.folder
    shards = [shard for name in paper_output.granularities for shard in paper_output.shards(name)]
    named = {shard["path"] for shard in shards} | {shard["receipt"] for shard in shards}
    named |= set(paper_output.last["tables"]) | {f"{name}/sizes.json" for name in paper_output.granularities}
    named |= {"dataset.json", "run.json", "report/report.html", "report/report.json", "report/contact-sheet.png"}
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == named


def test_the_report_shows_the_numbers_of_the_run(paper_output):
    page = (paper_output.folder / "report/report.html").read_text(encoding="utf-8")
    for name in paper_output.granularities:
        assert name in page
    assert "too few clips" in page
    assert not re.findall(r"""(?:src|href)=["']https?://""", page)


def test_the_same_recipe_in_another_place_gives_the_same_bytes(paper_output, corpus, clip_model, tmp_path):
    body = paper_recipe(corpus, clip_model) + "[ray]\ncpus_a_shard = 2\n"
    other = expand_to(write_recipe(tmp_path / "elsewhere", body, output="data/set"),
                      output=tmp_path / "elsewhere/data/set")  # fmt: skip
    assert len(sums(other.folder)) == 13 + 2 + 2 + 13
    assert sums(other.folder) == sums(paper_output.folder)
    assert other.last["recipe_hash"] == paper_output.last["recipe_hash"]
    assert metadata_of(corpus)
