from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gex_pipeline.report.figures import Figures, collect_figures, open_tables, published_manifest
from gex_pipeline.shards.manifest import Manifest
from gex_pipeline.validate.statistics import summarise
from tests.report import outputs


def figures_of(uri: str) -> Figures:
    manifest = published_manifest(uri)
    with open_tables(uri, manifest) as database:
        return collect_figures(uri, manifest, database)


def node(content: dict[str, Any], name: str) -> dict[str, Any]:
    return next(item for item in content["nodes"] if item["name"] == name)


def test_the_source_row_is_that_of_the_clips(content: dict[str, Any]) -> None:
    row = node(content, "SVST")
    words = 3 + 2 + len(outputs.HOSTILE.split()) + 1 + 2
    assert (row["samples"], row["sources"], row["duration_s"], row["words"]) == (5, 2, 10.0, words)
    assert row["mean_duration_s"] == 2.0
    assert row["mean_words"] == words / 5


def test_the_row_of_a_granularity_adds_up_its_samples(content: dict[str, Any]) -> None:
    row = node(content, "LVLT")
    assert (row["samples"], row["shards"], row["duration_s"], row["mean_duration_s"]) == (2, 1, 10.0, 5.0)
    assert row["made_by"] == {"copy": 1, "encode": 1}
    assert (row["symbol"], row["parent"], row["media"]) == ("⊕", "SVST", "video")


def test_pictures_have_no_duration(content: dict[str, Any]) -> None:
    row = node(content, "IT")
    assert (row["samples"], row["media"], row["mean_duration_s"]) == (5, "image", None)
    durations = next(panel for panel in content["panels"] if panel["quantity"] == "duration_s")
    assert [item["granularity"] for item in durations["distributions"]] == ["SVST", "LVLT", "LVST"]


def test_distributions_agree_with_the_statistics_of_the_scores_room(content: dict[str, Any]) -> None:
    durations = next(panel for panel in content["panels"] if panel["quantity"] == "duration_s")
    source, long = durations["distributions"][:2]
    expected = summarise([2.0, 2.0, 3.0, 2.0, 1.0])
    assert source["is_source"]
    assert source["statistics"] == pytest.approx(expected, abs=1e-6)
    assert long["statistics"] == pytest.approx(summarise([7.0, 3.0]), abs=1e-6)


def test_every_value_lies_in_a_bin(content: dict[str, Any]) -> None:
    for panel in content["panels"]:
        for item in panel["distributions"]:
            assert len(item["counts"]) == len(panel["axis"]["edges"]) - 1
            assert sum(item["counts"]) == item["statistics"]["num"]


def test_scores_are_those_of_accepted_samples(content: dict[str, Any]) -> None:
    scores = {item["score"]: item for item in content["scores"]}
    cosine = scores["sentence_cosine"]
    assert cosine["statistics"]["mean"] == 0.75
    assert cosine["statistics"]["std"] == 0.15
    assert (cosine["statistics"]["min"], cosine["statistics"]["max"], cosine["num_rejected"]) == (0.6, 0.9, 1)
    assert (sum(cosine["accepted"]), sum(cosine["rejected"]), cosine["gate_min"]) == (2, 1, 0.5)
    assert scores["rouge1"]["statistics"]["median"] == 0.5


def test_losses_come_with_counts_and_three_examples(content: dict[str, Any]) -> None:
    losses = {(item["granularity"], item["reason"]): item for item in content["losses"]}
    assert losses["LVLT", "too_few_clips"]["num"] == 5
    assert [example["id"] for example in losses["LVLT", "too_few_clips"]["examples"]] == ["e0", "e1", "e2"]
    assert losses["SVST", "missing_caption"]["num"] == 2
    assert losses["LVLT", "media_missing"]["examples"][0]["detail"] == "no file <b>here</b>"


def test_what_a_later_snapshot_rejects_again_is_counted_once(tmp_path: Path) -> None:
    uri = outputs.make_output(tmp_path, summaries=False, images=False)
    manifest = published_manifest(uri)
    (first,) = manifest.snapshots
    again = [outputs.LOSSES[1], outputs.LOSSES[2], outputs.LOSSES[2]]  # the same two rows, and one of them twice
    table = outputs.write_losses(Path(uri), "rejects-000001", again)
    second = replace(first, snapshot=1, granularities={}, tables=(table,))
    outputs.publish(Path(uri), Manifest(manifest.name, (first, second)))
    figures = figures_of(uri)
    assert {item.reason: item.num for item in figures.losses} == {
        "missing_caption": 3,
        "media_missing": 1,
    }  # and no exclusion: the plan of the second snapshot leaves nothing out any more
    assert [entry.snapshot for entry in figures.snapshots] == [1, 0]


def test_an_overlap_that_stands_in_two_tables_is_counted_once(tmp_path: Path) -> None:
    uri = outputs.make_output(tmp_path, summaries=False, images=False)
    overlap = ("LVLT", "plan", "rejected", "overlaps_previous", "", "o1", "alpha", "")
    outputs.write_losses(Path(uri), "rejects-000000", [overlap])
    outputs.write_losses(Path(uri), "excluded-LVLT-000000", [overlap])
    assert [(item.reason, item.num) for item in figures_of(uri).losses] == [("overlaps_previous", 1)]


def test_a_shard_that_is_not_in_the_manifest_counts_nowhere(tmp_path: Path) -> None:
    uri = outputs.make_output(tmp_path, summaries=False, images=False)
    before = figures_of(uri)
    stray = [(record, b"no video") for record, _ in outputs.joined_samples()]
    outputs.write_shard(Path(uri), "LVLT", stray, number=7)
    outputs.write_losses(Path(uri), "rejects-000009", outputs.LOSSES)
    assert figures_of(uri) == before


def test_an_operation_that_is_not_installed_is_named(tmp_path: Path) -> None:
    uri = outputs.make_output(tmp_path, summaries=False, images=False)
    manifest = published_manifest(uri)
    (entry,) = manifest.snapshots
    recipe = {"granularity": {"SVST": {}, "LVLT": {"operation": "dream", "from": "SVST"}}}
    strange = replace(entry.granularities["LVLT"], operation="dream")
    changed = replace(entry, recipe=recipe, granularities={"LVLT": strange})
    outputs.publish(Path(uri), Manifest(manifest.name, (changed,)))
    assert figures_of(uri).nodes[1].symbol == "dream"
