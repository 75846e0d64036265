from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gex_pipeline.cli.main import main
from gex_pipeline.errors import GexError
from gex_pipeline.report.build import build_report
from gex_pipeline.report.validation import plane_chart
from gex_pipeline.shards.manifest import read_manifest
from gex_pipeline.stages import validation
from gex_pipeline.stages.validation import ValidationOptions, validate_output
from tests.report import outputs
from tests.report.page import Page


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    folder = Path(outputs.make_output(tmp_path_factory.mktemp("validated")))
    validate_output(str(folder), ValidationOptions())
    return folder


def page_of(output: Path) -> Page:
    build_report(str(output))
    return Page((output / "report/report.html").read_text(encoding="utf-8"))


def test_a_report_without_a_validation_does_not_speak_of_it(page: Page) -> None:
    assert "validation" not in [attributes.get("id") for attributes in page.of("section")]


def test_a_validation_of_another_snapshot_is_marked(output: Path) -> None:
    assert "not the newest" not in page_of(output).text
    file = output / "report/validation.json"
    kept = file.read_bytes()
    file.write_text(json.dumps(json.loads(kept) | {"snapshot": 3}))
    try:
        assert "Of snapshot 3 ( not the newest : run gex validate again)" in page_of(output).text
        file.write_text("{")
        with pytest.raises(GexError, match=r"validation\.json is damaged"):
            build_report(str(output))
    finally:
        file.write_bytes(kept)


def test_the_plane_has_its_origin_below_on_the_left_and_joins_a_text_to_its_summary() -> None:
    chart = str(plane_chart({"video": [[0, 0]], "long_text": [[1, 1], [1, 0]], "short_text": [[0, 1], [0.5, 0]]}))
    assert re.findall(r'<rect x="(\d+)" y="(\d+)"', chart) == [("12", "460")]
    assert re.findall(r'<circle cx="(\d+)" cy="(\d+)" r="4.5"', chart) == [("664", "16"), ("664", "464")]
    lines = re.findall(r'<line x1="(\d+)" y1="(\d+)" x2="(\d+)" y2="(\d+)"', chart)
    assert lines == [("664", "16", "16", "16"), ("664", "464", "340", "464")]


def test_a_validated_sample_that_is_gone_has_no_picture(output: Path) -> None:
    file = output / "report/validation.json"
    content = json.loads(file.read_bytes())
    for item in content["worst"]:
        item["samples"][0]["key"] = "0" * 32
    file.write_text(json.dumps(content))
    assert "0000000000" in page_of(output).text


def cosine(score: str, num: int, num_cut: int) -> dict[str, Any]:
    """A row of validation.json."""
    figures = dict.fromkeys(("mean", "std", "min", "p05", "median", "p95", "max"), 0.25)
    return {"granularity": "LVST", "score": score, "num": num, **figures, "num_unreadable": 0, "num_cut": num_cut}


def test_cut_texts_are_said_of_how_many_on_the_page_and_in_the_terminal(output: Path, monkeypatch, capsys) -> None:
    """A long and a short text a sample were read, and one number of cut ones stood there for both; here for none."""
    pairs = [
        cosine("clip_video_short_text", 100, 1),
        cosine("clip_text_cosine", 1000, 1012),
        cosine("clip_video_text", 5, 0),
    ]
    file = output / "report/validation.json"
    kept = file.read_bytes()
    content = json.loads(kept) | {"pairs": pairs, "clip_model": "m", "clip_frames": 8}
    file.write_text(json.dumps(content))
    try:
        text = page_of(output).text
    finally:
        file.write_bytes(kept)
    assert "1 of 100 texts longer than CLIP reads" in text
    assert "1 012 of 2 000 texts longer than CLIP reads" in text
    assert text.count("longer than CLIP reads") == 2
    assert "here a text is cut at the length that the model reads" in text

    monkeypatch.setattr(validation, "validate_output", lambda *_: content)  # CLIP itself is not what this is about
    assert main(["validate", str(output), "--no-report"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    ends = {" ".join(line[:3]): line for line in lines if line}
    assert next(line for line in lines if line[:1] == ["score"])[-2:] == ["texts", "cut"]
    assert ends["long video and"][-3:] == ["1", "of", "100"]
    assert ends["long text and"][-3:] == ["1,012", "of", "2,000"]
    assert ends["video and text"][-1] == "0"
    assert ends["rouge1 LVST 2"][-2:] == ["-", "-"]  # of stored scores nobody counted


def test_summaries_by_fallback_are_counted_above_the_scores_they_are_in(output: Path) -> None:
    """They are gated by nothing, and the means did not say that they hold them."""
    manifest = read_manifest(str(output))
    (only,) = manifest.snapshots
    assert "by fallback" not in page_of(output).text
    keys = [row["key"] for row in pq.read_table(output / "tables/summaries-LVST-000000.parquet").to_pylist()]
    rows = [
        {"key": keys[0], "fallback_reason": "summary_refusal"},
        {"key": keys[1], "fallback_reason": None},
        {"key": "f" * 32, "fallback_reason": None},
    ]
    table = outputs.write_rows(output, "summaries-LVST-000001", rows)
    again = replace(only, snapshot=1, granularities={}, tables=(table,))
    outputs.publish(output, replace(manifest, snapshots=(only, again)))
    try:
        assert "1 of 3 summaries by fallback, not gated; their scores are among these." in page_of(output).text
        content = json.loads((output / "report/report.json").read_bytes())
        assert content["fallbacks"] == {"LVST": {"num_summaries": 3, "num_fallback": 1}}
    finally:
        outputs.publish(output, manifest)
        (output / "tables/summaries-LVST-000001.parquet").unlink()


def test_the_pace_of_a_model_stands_above_its_scores(output: Path) -> None:
    row = {
        "num_answers": 2,
        "num_cached": 0,
        "num_prompt_tokens": 700,
        "num_generated_tokens": 100,
        "startup_s": 30.0,
        "answering_s": 4.0,
        "tokens_per_s": 200.0,
    }
    manifest = read_manifest(str(output))
    (only,) = manifest.snapshots
    table = outputs.write_rows(output, "answering-LVST-000000", [row])
    outputs.publish(output, replace(manifest, snapshots=(replace(only, tables=(*only.tables, table)),)))
    text = page_of(output).text
    assert (
        "2 answers of a language model, 200 tokens a second (prompts and answers, 4 s; starting took 30 s more)" in text
    )
    content = json.loads((output / "report/report.json").read_bytes())
    assert content["answering"]["LVST"]["tokens_per_s"] == 200
