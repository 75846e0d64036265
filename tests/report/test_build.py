from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gex_pipeline.errors import GexError
from gex_pipeline.report.build import build_report
from gex_pipeline.shards.manifest import Account, Manifest, read_manifest
from tests.report import outputs
from tests.report.page import Page

FILES = ("report.html", "report.json", "contact-sheet.png")


def read_all(uri: str) -> list[bytes]:
    return [Path(uri, "report", name).read_bytes() for name in FILES]


def test_the_report_says_where_its_page_is(output_uri: str) -> None:
    assert build_report(output_uri) == f"{output_uri}/report/report.html"


def test_the_same_output_gives_the_same_bytes(output_uri: str) -> None:
    before = read_all(output_uri)
    build_report(output_uri)
    assert read_all(output_uri) == before


def test_a_copy_of_the_output_gives_the_same_bytes(output_uri: str, tmp_path: Path) -> None:
    copy = shutil.copytree(output_uri, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("report"))
    build_report(str(copy))
    assert read_all(str(copy)) == read_all(output_uri)


def test_nothing_published_is_changed(tmp_path: Path) -> None:
    uri = outputs.make_output(tmp_path, images=False)
    before = {path: path.read_bytes() for path in Path(uri).rglob("*") if path.is_file()}
    build_report(uri)
    after = {path: path.read_bytes() for path in Path(uri).rglob("*") if path.is_file()}
    assert {path: after[path] for path in before} == before
    assert {path.name for path in after.keys() - before.keys()} == set(FILES)


def test_the_page_loads_nothing_from_elsewhere(page: Page, html: str) -> None:
    sources = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "poster")
    ]
    assert sources
    assert all(value.startswith("data:") for value in sources)
    assert {attributes["href"] for attributes in page.of("a")} == {"contact-sheet.png"}
    assert not page.of("link")
    assert not re.search(r"url\(|@import|https?://", re.sub(r"data:[^\"]+", "", html))


def test_the_policy_allows_the_one_script_and_no_other(page: Page) -> None:
    (policy,) = [meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}'" in policy


def test_a_hostile_caption_is_text(page: Page, html: str) -> None:
    assert " ".join(outputs.HOSTILE.split()) in page.text
    assert "<script>alert" not in html
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    assert len(page.of("script")) == 1


def test_a_hostile_name_detail_and_row_are_text(page: Page) -> None:
    assert "Colours & <b>shapes</b>" in page.text
    assert "no file <b>here</b>" in page.text
    assert '{"text": "<i>x</i>"}' in page.text


def test_the_balance_stands_on_the_page(page: Page) -> None:
    assert "4 321" in page.text
    assert "too few clips 5" in page.text
    assert "media missing 1" in page.text
    assert page.text.count("0 · balanced") == 2


def test_an_account_that_does_not_add_up_is_not_called_balanced(tmp_path: Path) -> None:
    uri = outputs.make_output(tmp_path, summaries=False, images=False)
    manifest = read_manifest(uri)
    assert manifest is not None
    (entry,) = manifest.snapshots
    broken = replace(entry, accounts=(Account("integrate", "LVLT", "clips", 9, 5),))
    outputs.publish(Path(uri), Manifest(manifest.name, (broken,)))
    page = Page(Path(build_report(uri)).read_text())
    assert "4 missing" in page.text
    assert "balanced" not in page.text


def test_videos_play_and_pictures_show(page: Page) -> None:
    assert len(page.of("video")) == 4  # two LVLT, two LVST
    assert all(video["src"].startswith("data:video/mp4;base64,") for video in page.of("video"))
    assert all({"controls", "muted"} <= set(video) and video["preload"] == "metadata" for video in page.of("video"))
    assert len([image for image in page.of("img") if image["src"].startswith("data:image/jpeg")]) == 5


def test_the_embedded_video_is_that_of_the_shard(page: Page, output_uri: str) -> None:
    tar = Path(output_uri, "LVLT", "LVLT-000000.tar").read_bytes()
    embedded = [base64.b64decode(video["src"].split(",")[1]) for video in page.of("video")]
    assert sum(content in tar for content in embedded) == 4


def test_a_summary_stands_beside_the_text_it_was_made_from(page: Page) -> None:
    assert "Colours of beta follow." in page.text
    assert "The long text it was made from (3 words → 4)" in page.text
    assert "yellow. grey مرحبا." in page.text
    assert "Summarised by extractive in 1 attempt" in page.text


def test_an_output_without_summaries_has_no_scores(tmp_path: Path) -> None:
    uri = outputs.make_output(tmp_path, summaries=False)
    page = Page(Path(build_report(uri)).read_text())
    assert "Scores" not in page.text
    assert json.loads(Path(uri, "report", "report.json").read_bytes())["scores"] == []
    assert len(page.of("video")) == 2


def test_an_output_of_pictures_only_has_no_contact_sheet(tmp_path: Path) -> None:
    uri = outputs.make_output(tmp_path, summaries=False)
    manifest = read_manifest(uri)
    assert manifest is not None
    build_report(uri)
    (entry,) = manifest.snapshots
    pictures = replace(entry, granularities={"IT": entry.granularities["IT"]})
    outputs.publish(Path(uri), Manifest(manifest.name, (pictures,)))
    page = Page(Path(build_report(uri)).read_text())
    assert not page.of("video")
    assert not page.of("a")
    assert not Path(uri, "report", "contact-sheet.png").exists()


def test_a_snapshot_that_made_no_samples_is_reported(tmp_path: Path) -> None:
    uri = outputs.make_output(tmp_path, summaries=False, images=False)
    manifest = read_manifest(uri)
    assert manifest is not None
    (entry,) = manifest.snapshots
    empty = replace(entry.granularities["LVLT"], shards=())
    outputs.publish(Path(uri), Manifest(manifest.name, (replace(entry, granularities={"LVLT": empty}),)))
    page = Page(Path(build_report(uri)).read_text())
    assert "0 LVLT" in page.text
    assert not page.of("video")


def test_scores_of_several_models_in_one_figure_are_told_beside_them(tmp_path: Path) -> None:
    uri = outputs.make_output(tmp_path)
    manifest = read_manifest(uri)
    assert manifest is not None
    (entry,) = manifest.snapshots
    changed = entry.recipe | {"scores": {"sentence_model": "org/<b>other</b>"}}
    later = replace(entry, snapshot=1, recipe=changed, granularities={}, tables=())
    outputs.publish(Path(uri), Manifest(manifest.name, (entry, later)))
    told = "figures of sentence cosine (minilm, then org/<b>other</b>) mix models that do not compare."
    assert told in Page(Path(build_report(uri)).read_text()).text


def test_nothing_published_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(GexError, match=r"nothing is published at .*run the recipe first"):
        build_report(str(tmp_path))


def test_the_number_of_samples_is_the_callers(output_uri: str, tmp_path: Path) -> None:
    copy = str(shutil.copytree(output_uri, tmp_path / "copy"))
    build_report(copy, num_samples=3)
    samples = json.loads(Path(copy, "report", "report.json").read_bytes())["samples"]
    assert [sample["row"]["granularity"] for sample in samples] == ["LVLT", "LVST", "IT"]
