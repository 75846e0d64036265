"""DESIGN's table of bad input, row by row, with real files in one run, and what must stop a run before it starts."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter

import numpy as np
import pytest

from gex_pipeline.cli.main import main
from tests.end_to_end.planting import CLEAN, faults_of, file_of, plant
from tests.end_to_end.running import NO_MODELS, expand_to, frames_of, media_of, source_table, write_recipe
from tests.media.making_clips import number_of, read_number

BODY = """
[granularity.SVST]
[granularity.LVLT]
operation = "integrate"
from = "SVST"
overlap = "reject"
[granularity.LVST]
operation = "compress_text"
from = "LVLT"
summarizer = { backend = "extractive" }
gates = {}
[granularity.IT]
operation = "compress_video"
from = "SVST"
"""


@pytest.fixture(scope="module")
def planted(running, tmp_path_factory):
    """The spoiled corpus and what the flow made of it."""
    folder = tmp_path_factory.mktemp("planted")
    corpus = plant(folder)
    source = f'[source]\nclips = "{corpus / "clips.jsonl"}"\nwhere = "UMT_Score > 0.3"\n{media_of(corpus)}\n'
    return corpus, expand_to(write_recipe(folder, source + NO_MODELS + BODY), report=True)


def numbers(output, source):
    sample = output.by_source("LVLT")[source]
    return [read_number(np.asarray(frame)) for frame in frames_of(output.members("LVLT")[sample["key"]]["mp4"])]


def whole(*clips, frames=25):
    return [number_of(clip, frame) for clip in clips for frame in range(frames)]


def test_the_rows_are_rejected_for_these_reasons_and_no_others(planted):
    _, output = planted
    assert output.ingest["rejected"] == {
        "unreadable_row": 1,
        "missing_source_id": 1,
        "unsafe_source_id": 2,
        "unreadable_timestamp": 1,
        "end_not_after_start": 1,
        "missing_caption": 3,
        "duplicate_clip": 1,
    }
    assert output.ingest["excluded"] == {"filtered_by_where": 1}


def test_every_reject_keeps_its_input_row(planted):
    corpus, output = planted
    texts = {row["reason"]: row["row"] for row in output.table("rejects") if row["stage"] == "ingest"}
    line = texts.pop("unreadable_row")
    assert line in (corpus / "clips.jsonl").read_text(encoding="utf-8").splitlines()  # no row: the line as it stands
    rows = {reason: json.loads(text) for reason, text in texts.items()}
    assert rows["unsafe_source_id"]["YoutubeID"] in ("../../etc/passwd", "a/b")
    assert rows["filtered_by_where"]["UMT_Score"] == 0.1
    assert rows["unreadable_timestamp"]["Start_timestamp"].count("?") == 1
    assert rows["duplicate_clip"]["Caption"]


def test_the_planted_faults_of_the_demo_end_as_they_should(planted):
    corpus, output = planted
    clips = {row["media_uri"].rsplit("/", 1)[1]: row["clip_id"] for row in output.table("clips")}
    lost = {
        (row["granularity"], row["id"]): row["reason"] for row in output.table("rejects") if row["stage"] == "build"
    }
    seen = Counter()
    for fault in faults_of(corpus):
        name = fault["files"][0].removeprefix("clips/")
        if fault["reason"] is None or name not in clips or fault["fault"] == "duplicate_row":
            continue  # no reject, or a row that never became a clip
        for granularity in ("LVLT", "IT"):
            assert lost[granularity, clips[name]] == fault["reason"], fault
        seen[fault["reason"]] += 1
    assert seen == {
        "media_truncated": 1,
        "media_missing": 1,
        "media_empty": 1,
        "not_a_video": 1,
        "duration_mismatch": 1,
    }


def test_losses_of_the_edges_are_these_and_no_others(planted):
    _, output = planted
    media = {
        "media_truncated": 1,
        "media_missing": 1,
        "media_empty": 1,
        "not_a_video": 2,
        "duration_mismatch": 1,
        "no_frames": 1,
    }
    assert output.account("IT")["rejected"] == media
    assert output.account("IT")["excluded"] == {}
    assert output.account("LVLT")["rejected"] == {**media, "overlaps_previous": 1}
    # The first source loses one of its four clips; two sources never had four.
    by_build = [r for r in output.table("rejects") if (r["granularity"], r["reason"]) == ("LVLT", "too_few_clips")]
    assert [row["detail"] for row in by_build] == ["3 of 4 clips usable, 4 needed"] * 3
    assert output.account("LVST")["rejected"] == {}


def test_a_group_without_its_bad_clips_is_whole(planted):
    _, output = planted
    assert numbers(output, "overlap0001") == whole(0, 1, 3, 4, 5)
    assert numbers(output, "nopicture01") == whole(0, 1, 2, 3)
    assert output.by_source("LVLT")["nopicture01"]["made_by"] == "copy"


def test_neighbours_of_bad_clips_are_unharmed(planted):
    """Every usable clip of a source of four is in its sample, every other usable clip in a picture of its own."""
    _, output = planted
    rejected = {
        row["id"] for row in output.table("rejects") if (row["granularity"], row["state"]) == ("LVLT", "rejected")
    }
    usable = Counter(row["source_id"] for row in output.table("clips") if row["clip_id"] not in rejected)
    long = {source: count for source, count in usable.items() if count >= 4}
    assert {source: len(row["parents"]) for source, row in output.by_source("LVLT").items()} == long
    assert len(long) == 4 + len(CLEAN) + 3  # drawn, captions, and overlap, mixture and nopicture
    for sample, members in ((s, output.members("LVLT")[s["key"]]) for s in output.samples("LVLT")):
        frames = len(frames_of(members["mp4"]))
        assert frames == pytest.approx(sample["duration_s"] * sample["fps"], abs=0.01)


def test_rotated_odd_uneven_and_foreign_clips_are_upright_and_in_real_time(planted):
    _, output = planted
    sample = output.by_source("LVLT")["mixture0001"]
    assert sample["made_by"] == "encode"
    assert (sample["width_px"], sample["height_px"], sample["fps"]) == (96, 64, 25)
    assert [segment["duration_s"] for segment in sample["segments"]] == pytest.approx([1.0] * 7, abs=0.041)
    seen = numbers(output, "mixture0001")
    place = 0
    for clip, segment in enumerate(sample["segments"]):
        first, count = round(segment["offset_s"] * 25), round(segment["duration_s"] * 25)
        assert first == place
        part = seen[first : first + count]
        assert [number >> 8 for number in part] == [clip] * count
        assert part[0] == number_of(clip, 0)
        assert part == sorted(part)
        place += count
    assert place == len(seen)
    uneven = [number & 255 for number in seen[75:100]]
    assert uneven[12] == 4  # half a second in: the last of the five slow pictures
    assert uneven[-1] in (18, 19)


def test_clips_of_mixed_sizes_are_encoded_anew(planted):
    corpus, output = planted
    (fault,) = [fault for fault in faults_of(corpus) if fault["fault"] == "mixed_sizes"]
    sample = output.by_source("LVLT")[fault["YoutubeID"]]
    assert sample["made_by"] == "encode"
    assert output.last["granularities"]["LVLT"]["totals"]["encoded"] == 2


def test_captions_are_cleaned_of_what_cannot_be_seen_and_kept_otherwise(planted):
    _, output = planted
    clips = sorted(output.table("clips"), key=lambda row: (row["source_id"], row["start_s"]))
    for source, expected in CLEAN.items():
        mine = [row for row in clips if row["source_id"] == source]
        assert [row["text"] for row in mine] == expected
        assert [row["text_cleaned"] for row in mine] == [row["text"] != row["Caption"] for row in mine]
        segments = output.by_source("LVLT")[source]["segments"]
        assert [segment["text"] for segment in segments] == expected


def test_markup_in_captions_is_data_everywhere(planted):
    _, output = planted
    sample = output.by_source("LVLT")["foreign0001"]
    assert "<b>bold</b> & <script>alert(1)</script>." in sample["text"]
    assert "一只狗在公园里奔跑。 word0 word1" in sample["text"]
    page = (output.folder / "report/report.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page
    summary = output.by_source("LVST")["chatmark001"]["text"]
    assert not any(mark in summary for mark in ("<|", "[INST]", "<<SYS>>", "</s>", "<", ">"))


def test_wrong_recipes_stop_before_anything_starts(corpus, tmp_path, capsys):
    good = source_table(corpus) + BODY
    for change, message in {
        (
            'overlap = "reject"',
            'overlaps = "reject"',
        ): "granularity.LVLT.overlaps: unknown key; did you mean 'overlap'?",
        ('from = "LVLT"', 'from = "LONG"'): "from = 'LONG' is not a granularity of this recipe",
        ('operation = "integrate"', 'operation = "integrat"'): "operation = 'integrat' is not known",
        ('colon = "-"', 'colon = "+"'): "source.media.colon = '+'",
        ('overlap = "reject"', "min_clips = 0"): "granularity.LVLT.min_clips = 0",
        ("[granularity.SVST]", "[granularity.SVST"): "not a TOML file",
        ('backend = "extractive"', 'backend = "vllm"'): "needs `model`",
    }.items():
        recipe = write_recipe(tmp_path, good.replace(*change))
        assert main(["run", str(recipe)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"gex: {recipe}: ")
        assert message in error
        assert error.count("\n") == 1
    assert main(["run", str(tmp_path / "nowhere.toml")]) == 2
    assert not (tmp_path / "output").exists()


def test_metadata_without_the_columns_of_the_recipe_name_the_key(running, corpus, tmp_path, capsys):
    body = source_table(corpus) + 'columns = { caption = "Text" }\n' + BODY
    assert main(["run", str(write_recipe(tmp_path, body))]) == 2
    error = capsys.readouterr().err
    assert "source.columns.caption: the metadata has no column 'Text'; it has: YoutubeID" in error


def test_an_output_that_cannot_be_written_is_known_at_once(running, corpus, tmp_path, capsys):
    (tmp_path / "a_file").write_text("not a folder")
    for output in (f"{tmp_path}/a_file/output", "/proc/gex-output"):
        started = time.monotonic()
        recipe = write_recipe(tmp_path, source_table(corpus) + NO_MODELS + BODY, output=output)
        assert main(["run", str(recipe)]) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("gex: ")
        assert output in error
        assert time.monotonic() - started < 30


def test_a_late_clip_completes_the_group_that_a_bad_one_had_broken(planted):
    """Three of the first source's four clips were usable; a fifth makes four. Adds a snapshot: stays last."""
    corpus, before = planted
    (fault,) = [fault for fault in faults_of(corpus) if fault["fault"] == "truncated_file"]
    lines = (corpus / "clips.jsonl").read_text(encoding="utf-8").splitlines()
    known = [json.loads(line) for line in lines if fault["YoutubeID"] in line]
    late = {**known[0], "Start_timestamp": "00:10:00.000", "End_timestamp": "00:10:03.000"}
    shutil.copy(file_of(corpus, known[0]), file_of(corpus, late))
    with (corpus / "clips.jsonl").open("a", encoding="utf-8") as out:
        out.write(json.dumps(late) + "\n")
    after = expand_to(corpus.parent / "recipe.toml")
    assert fault["YoutubeID"] not in before.by_source("LVLT")
    sample = after.by_source("LVLT")[fault["YoutubeID"]]
    assert len(sample["parents"]) == 4
    assert sample["segments"][-1]["start_s"] == 600
    assert after.ingest["num_used"] == 1
    assert after.ingest["rejected"] == before.ingest["rejected"]
    assert {row["key"] for row in before.samples("LVLT")} < {row["key"] for row in after.samples("LVLT")}
