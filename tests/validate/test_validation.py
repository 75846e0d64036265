"""`gex validate` over published outputs: what it says is computed again here, from the files alone."""

from __future__ import annotations

import base64
import io
import json
import re
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from flows.validate import ValidateParameters
from gex_pipeline.cli.main import main
from gex_pipeline.media.frames import sample_frames
from gex_pipeline.report.figures import collect_figures, open_tables, published_manifest
from gex_pipeline.report.validation import plane_chart, validation_section
from gex_pipeline.shards.manifest import Manifest
from gex_pipeline.shards.reader import iter_samples, read_member
from tests.report.outputs import make_output, publish
from tests.report.page import Page
from tests.validate.published import long_sample, publish_summaries_of_clips, publish_two, write_snapshot
from tests.validate.tiny_clip import write_tiny_clip

NUM = 24
OTHER_LAYER = {"bertscore_layers": 3}


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("models") / "tiny", ["a red field wall light sea flag door hat car"])


@pytest.fixture(scope="module")
def drifted(tmp_path_factory) -> Path:
    """The second snapshot's texts are twice as long, its scores lower, and BERTScore another layer's."""
    output = publish_two(tmp_path_factory.mktemp("drifted"), NUM, later_words=40, later_score=0.3)
    first, later = published_manifest(str(output)).snapshots
    publish(output, Manifest("colours", (first, replace(later, recipe=later.recipe | {"scores": OTHER_LAYER}))))
    return output


@pytest.fixture(scope="module")
def found(drifted, clip_folder) -> tuple[int, dict[str, Any]]:
    """The exit code and the content of ``validation.json``; the report is written too."""
    code = main(["validate", str(drifted), "--clip", str(clip_folder), "--videos", "40", "--json"])
    return code, json.loads((drifted / "report/validation.json").read_text(encoding="utf-8"))


def test_scores_of_several_models_in_one_figure_are_told(drifted, found):
    """Both pages gave one mean over scores that do not compare, and said nothing."""
    told = (
        "[scores] was changed between snapshots: figures of BERTScore (minilm, then minilm 3) mix models that do not "
        "compare."
    )
    assert told in found[1]["notes"]
    unlike = "No earlier snapshot took BERTScore as the newest did: no drift of it is looked for."
    assert unlike in found[1]["notes"]
    with open_tables(str(drifted), published_manifest(str(drifted))) as database:
        assert collect_figures(str(drifted), published_manifest(str(drifted)), database).mixed_scores == told


def members(output: Path, granularity: str) -> dict[str, dict[str, bytes]]:
    """Key → extension → bytes."""
    return {
        sample.key: {member.extension: read_member(str(tar), member) for member in sample.members}
        for tar in sorted((output / granularity).glob("*.tar"))
        for sample in iter_samples(str(tar))
    }


def pair(content: dict[str, Any], score: str, granularity: str) -> dict[str, Any]:
    (item,) = [item for item in content["pairs"] if (item["score"], item["granularity"]) == (score, granularity)]
    return item


def test_cosines_of_long_and_short_texts_are_those_of_the_model(found, drifted, clip_folder):
    from gex_pipeline.validate.clip import ClipCosine

    clip = ClipCosine(str(clip_folder))
    long_texts = {key: item["txt"].decode() for key, item in members(drifted, "LVLT").items()}
    shorts = members(drifted, "LVST").values()
    parents = [json.loads(item["json"])["parents"][0] for item in shorts]
    values = clip.text_text([long_texts[parent] for parent in parents], [item["txt"].decode() for item in shorts])
    item = pair(found[1], "clip_text_cosine", "LVST")
    assert item["num"] == 2 * NUM
    assert item["mean"] == pytest.approx(statistics.fmean(values), abs=1e-4)
    assert item["std"] == pytest.approx(statistics.pstdev(values), abs=1e-4)
    assert item["num_cut"] >= NUM  # the tiny model reads 24 tokens
    of_key = dict(zip(members(drifted, "LVST"), values, strict=True))
    (worst,) = [one["samples"] for one in found[1]["worst"] if one["score"] == "clip_text_cosine"]
    assert len(worst) == 10
    assert {one["key"]: one["value"] for one in worst} == pytest.approx(
        {one["key"]: of_key[one["key"]] for one in worst}, abs=1e-4
    )


def test_cosines_of_videos_are_those_of_their_frames(found, drifted, clip_folder, tmp_path):
    from gex_pipeline.validate.clip import ClipCosine

    clip = ClipCosine(str(clip_folder))
    expected = {}
    for key, item in members(drifted, "LVLT").items():
        (tmp_path / "v.mp4").write_bytes(item["mp4"])
        seen = clip.embed_video(list(sample_frames(tmp_path / "v.mp4", 8)))
        expected[key] = float(seen @ clip.embed_texts([item["txt"].decode()])[0])
    content = found[1]
    lowest = next(item for item in content["worst"] if item["score"] == "clip_video_long_text")
    assert len(lowest["samples"]) == 10
    values = [sample["value"] for sample in lowest["samples"]]
    assert values == sorted(values)
    for sample in lowest["samples"]:
        assert sample["value"] == pytest.approx(expected[sample["key"]], abs=1e-4)
    item = pair(content, "clip_video_long_text", "LVLT")
    assert item["num"] == 40
    assert item["min"] == pytest.approx(values[0], abs=1e-5)
    assert min(expected.values()) - 1e-4 <= item["min"]
    # Summaries are drawn by their parents: the same forty videos.
    long_keys = {json.loads(one["json"])["parents"][0]: key for key, one in members(drifted, "LVST").items()}
    drawn_short = {long_keys[key] for key in expected} & set(content["plane"]["keys"])
    assert len(drawn_short) == len(content["plane"]["keys"]) == 40


def test_a_new_snapshot_that_is_not_like_the_one_before_is_alarm_and_code_5(found, drifted):
    code, content = found
    assert code == 5
    drift = {(row["granularity"], row["quantity"]): row for row in content["drift"]}
    assert {key for key, row in drift.items() if row["is_alarm"]} == {("LVLT", "num_words"), ("LVST", "rouge1")}
    words = {name: len(item["txt"].split()) for name, item in members(drifted, "LVLT").items()}
    row = drift["LVLT", "num_words"]
    assert row["mean_before"] * NUM + row["mean_new"] * NUM == pytest.approx(sum(words.values()))
    assert row["mean_new"] == row["mean_before"] + 20
    assert row["psi"] > row["psi_by_chance"]
    assert drift["LVST", "num_words"]["psi"] == 0
    assert drift["LVST", "duration_s"]["standard_errors"] is None


def test_the_threshold_is_settable_and_a_like_snapshot_is_none(tmp_path, drifted, capsys):
    like = publish_two(tmp_path, NUM, later_words=20, later_score=0.6)
    assert main(["validate", str(like), "--no-report"]) == 0
    assert "PSI at most 0.00\n" in capsys.readouterr().out
    assert main(["validate", str(drifted), "--no-report", "--max-psi", "50"]) == 0
    capsys.readouterr()


def test_without_clip_texts_are_looked_at_and_what_is_missing_is_said(tmp_path, capsys):
    output = make_output(tmp_path)
    assert main(["validate", output]) == 0
    shown = capsys.readouterr()
    assert "No CLIP model is named" in shown.err
    content = json.loads(Path(output, "report/validation.json").read_bytes())
    assert (content["pairs"], content["plane"], content["drift"], content["clip_model"]) == ([], None, [], None)
    assert {row["score"]: row["mean"] for row in content["stored"]} == {
        "rouge1": 0.5,
        "sentence_cosine": 0.75,
        "bertscore_f1": 0.8,
    }
    (item,) = [item for item in content["worst"] if item["score"] == "rouge1"]
    assert [sample["value"] for sample in item["samples"]] == [0.25, 0.75]
    assert item["samples"][0]["long_text"].startswith("a red field. then green.")
    page = Page(Path(output, "report/report.html").read_text(encoding="utf-8"))
    assert "No CLIP model is named" in page.text
    assert "<script>alert" not in "".join(page.scripts)


def test_a_relative_model_of_the_recipe_lies_in_the_recipes_folder(tmp_path, clip_folder, monkeypatch, capsys):
    """It was looked for wherever the command was called."""
    output = Path(make_output(tmp_path))
    dataset = json.loads((output / "dataset.json").read_bytes())
    dataset["snapshots"][-1]["recipe"]["scores"] = {"clip_model": clip_folder.name}
    (output / "dataset.json").write_text(json.dumps(dataset))
    (output / "run.json").write_text(json.dumps({"base": str(clip_folder.parent)}))
    monkeypatch.chdir(tmp_path)
    assert main(["validate", str(output), "--videos", "2", "--no-report", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clip_model"] == clip_folder.name


def test_a_video_that_cannot_be_read_is_left_out_and_said(tmp_path, clip_folder):
    output = Path(make_output(tmp_path))
    (tar,) = (output / "LVLT").glob("*.tar")
    content = bytearray(tar.read_bytes())
    start = content.index(b"moov")
    content[start : start + 400] = bytes(400)  # the index of the first video
    tar.write_bytes(content)
    assert main(["validate", str(output), "--clip", str(clip_folder), "--json"]) == 0
    found = json.loads((output / "report/validation.json").read_bytes())
    assert pair(found, "clip_video_long_text", "LVLT")["num"] == 1
    assert pair(found, "clip_video_long_text", "LVLT")["num_unreadable"] == 1
    assert any("cannot be looked at" in note for note in found["notes"])
    assert pair(found, "clip_image_text", "IT")["num"] == 5
    with open_tables(str(output), published_manifest(str(output))) as database:
        section = validation_section(database, str(output))
    shown = {sample["key"] for item in found["worst"] for sample in item["samples"]}
    assert section is not None
    assert len(shown) == 5 + 1 + 2  # pictures, the sound long video, the summaries, which have their own videos
    assert set(section["posters"]) == shown
    assert all(uri.startswith("data:image/jpeg") for uri in section["posters"].values())


def picture_values(output: Path, arguments: list[str]) -> dict[str, float]:
    """What `gex validate` says of pictures and their texts, by key; there are fewer than it calls the worst."""
    assert main(arguments) == 0
    worst = json.loads((output / "report/validation.json").read_bytes())["worst"]
    (item,) = [item for item in worst if item["score"] == "clip_image_text"]
    return {sample["key"]: sample["value"] for sample in item["samples"]}


def test_a_picture_that_is_damaged_is_counted_and_the_report_is_written(tmp_path, clip_folder):
    """Its UnidentifiedImageError ended both with a traceback."""
    output = Path(make_output(tmp_path, summaries=False))
    arguments = ["validate", str(output), "--clip", str(clip_folder), "--json"]
    before = picture_values(output, arguments)
    (tar,) = (output / "IT").glob("*.tar")
    row, *_ = pq.read_table(tar.with_suffix(".parquet")).to_pylist()
    content = bytearray(tar.read_bytes())
    content[row["media_offset_bytes"] : row["media_offset_bytes"] + 16] = bytes(16)
    tar.write_bytes(content)
    after = picture_values(output, arguments)
    assert after == {key: value for key, value in before.items() if key != row["key"]}  # each with its own text
    found = json.loads((output / "report/validation.json").read_bytes())
    item = pair(found, "clip_image_text", "IT")
    assert (item["num"], item["num_unreadable"]) == (4, 1)
    assert any(row["key"] in note and "undecodable" in note for note in found["notes"])
    assert (output / "report/report.html").exists()


def test_a_picture_damaged_since_it_was_validated_ends_no_report(tmp_path, clip_folder):
    output = Path(make_output(tmp_path, summaries=False))
    assert main(["validate", str(output), "--clip", str(clip_folder), "--no-report", "--json"]) == 0
    (tar,) = (output / "IT").glob("*.tar")
    for row in pq.read_table(tar.with_suffix(".parquet")).to_pylist():
        content = bytearray(tar.read_bytes())
        content[row["media_offset_bytes"] : row["media_offset_bytes"] + 16] = bytes(16)
        tar.write_bytes(content)
    with open_tables(str(output), published_manifest(str(output))) as database:
        section = validation_section(database, str(output))
    assert section is not None
    assert len(section["posters"]) == 2  # of the videos


def test_the_largest_index_is_told_also_where_chance_explains_it(tmp_path, capsys):
    """Twenty samples, then five like them: a large PSI, which the line said was at most the threshold."""
    output = tmp_path / "output"
    texts = [long_sample(number, 16 + number % 9) for number in range(25)]
    snapshots = (write_snapshot(output, 0, texts[:20], 0.6), write_snapshot(output, 1, texts[20:], 0.6))
    publish(output, Manifest("colours", snapshots))
    assert main(["validate", str(output), "--no-report"]) == 0
    drift = json.loads((output / "report/validation.json").read_bytes())["drift"]
    largest = max(row["psi"] for row in drift)
    assert 0.2 < largest < min(row["psi_by_chance"] for row in drift if row["psi"] == largest)
    line = f"none of {len(drift)} quantities, PSI at most {largest:.2f}; over 0.2 only where chance explains it\n"
    assert line in capsys.readouterr().out


@pytest.mark.parametrize("seed", ["-1", str(2**32), "x"])
def test_a_seed_that_the_picture_cannot_take_is_refused_before_any_work(tmp_path, capsys, seed):
    """scikit-learn refused it when CLIP had looked at everything."""
    with pytest.raises(SystemExit):
        main(["validate", str(tmp_path), "--seed", seed])
    assert f"expected a whole number from 0 to 4294967295, not '{seed}'" in capsys.readouterr().err
    with pytest.raises(ValidationError, match="seed"):
        ValidateParameters(output=str(tmp_path), seed=seed)


def test_the_report_shows_it_beside_the_papers_table(found, drifted):
    html = (drifted / "report/report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert "0.220 ± 0.037" in page.text
    assert "0.791 ± 0.084" in page.text
    assert "2 alarms" in page.text
    posters = [item["src"] for item in page.of("img") if item["src"].startswith("data:image/jpeg")]
    assert len(posters) >= 20
    with Image.open(io.BytesIO(base64.b64decode(posters[-1].partition(",")[2]))) as picture:
        dominant = np.asarray(picture.convert("RGB")).mean(axis=(0, 1))
    assert dominant.max() > 150
    assert dominant.min() < 40  # a video of one colour
    assert all(item["src"].startswith("data:") for item in page.of("img"))
    for item in found[1]["worst"]:
        with Image.open(drifted / "report" / item["sheet"]) as sheet:
            assert sheet.height > 10 * 200


def test_summaries_of_clips_are_not_called_long_and_have_no_figure_of_the_paper_beside_them(
    tmp_path, clip_folder, capsys
):
    """Table 8 is of concatenated videos; it stood beside the summaries of clips of three seconds."""
    output = publish_summaries_of_clips(tmp_path, 6)
    assert main(["validate", str(output), "--clip", str(clip_folder)]) == 0
    lines = [re.split(r" {2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    start = next(number for number, line in enumerate(lines) if line[0] == "video and text")
    names = [("video and text", "SVST"), ("video and text", "TAG"), ("text and its summary", "TAG")]
    assert [(line[0], line[1], line[4]) for line in lines[start : start + 3]] == [(*name, "-") for name in names]
    content = json.loads((output / "report/validation.json").read_bytes())
    assert [(item["granularity"], item["score"], item["num"]) for item in content["pairs"]] == [
        ("SVST", "clip_video_text", 6),
        ("TAG", "clip_video_text", 6),
        ("TAG", "clip_text_summary", 6),
    ]
    # the lowest of a score that is stored are those of all, and stand there once
    assert {(item["granularity"], item["score"]) for item in content["worst"]} == {
        ("SVST", "clip_video_text"),
        ("TAG", "clip_video_short_text"),
        ("TAG", "clip_text_cosine"),
    }
    assert content["plane"]["media"] == "video"
    page = Page((output / "report/report.html").read_text(encoding="utf-8"))
    assert "text and its summary" in page.text
    assert not any(words in page.text for words in ("long video", "long text and", "0.215", "0.791", "figure 4"))
    with open_tables(str(output), published_manifest(str(output))) as database:
        section = validation_section(database, str(output))
    assert [words for _, words, _ in section["kinds"]] == ["video", "text", "short text"]


def test_the_same_output_gives_the_same_figures(found, drifted, clip_folder):
    main(["validate", str(drifted), "--clip", str(clip_folder), "--videos", "40", "--no-report", "--json"])
    assert json.loads((drifted / "report/validation.json").read_text(encoding="utf-8")) == found[1]


def test_the_picture_has_a_mark_for_every_feature(found):
    points = found[1]["plane"]["points"]
    page = Page(str(plane_chart(points)))
    assert len(page.of("rect")) == 40
    assert [item["class"].split()[1] for item in page.of("circle")].count("ring") == 40
    assert len(page.of("line")) == 40
    assert {kind: len(rows) for kind, rows in points.items()} == {"video": 40, "long_text": 40, "short_text": 40}


def test_nothing_published_is_one_sentence(tmp_path, capsys):
    assert main(["validate", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("gex: ")
