"""One sample, its lineage both ways, losses, and data sets of other people."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from urllib.parse import urlencode

import pytest
import webdataset

from gex_pipeline.shards.manifest import read_manifest
from tests.report import outputs
from tests.shards import damage
from tests.shards.damage import ALPHA

SHORT = outputs.summary_of(ALPHA, {})


def test_a_sample_has_its_text_segments_and_scores(site):
    found = site.json(f"/api/sample?granularity=LVST&key={SHORT.key}")
    assert (found["text"], found["source_text_digest"]) == (SHORT.text, SHORT.source_text_digest)
    assert found["scores"] == {"bertscore_f1": 0.8, "rouge1": 0.25, "sentence_cosine": 0.6}
    assert [segment["offset_s"] for segment in found["segments"]] == [0.0, 2.0, 4.0]
    assert (found["kind"], found["snapshot"], found["is_referenced"]) == ("video", 0, False)


@pytest.mark.parametrize("scores", ["[1]", '{"a": "x", "b": null, "c": NaN, "d": 0.5}', "no JSON", "[" * 5000])
def test_scores_that_are_none_are_left_out(browse, output, scores):
    damage.change_receipt(output, "LVST", SHORT.key, scores=scores)
    found = browse(output).json(f"/api/sample?granularity=LVST&key={SHORT.key}")
    assert found["scores"] == ({"d": 0.5} if "d" in scores else {})


def test_lineage_goes_up_to_the_clips_with_their_metadata(site):
    found = site.json(f"/api/lineage?granularity=LVST&key={SHORT.key}")
    (parent,) = found["parents"]
    assert (parent["kind"], parent["id"], parent["sample"]["text"]) == ("sample", ALPHA.key, ALPHA.text)
    clips = parent["parents"]
    assert [(item["kind"], item["id"]) for item in clips] == [("clip", outputs.clip_id(number)) for number in range(3)]
    assert clips[2]["clip"]["Caption"] == outputs.HOSTILE
    assert clips[1]["clip"]["media_uri"].endswith("clip1.mp4")
    assert (found["num_parents"], found["num_children"], found["children"]) == (1, 0, [])


def test_lineage_goes_down_to_what_was_made(site):
    found = site.json(f"/api/lineage?granularity=LVLT&key={ALPHA.key}")
    assert [(child["granularity"], child["key"]) for child in found["children"]] == [("LVST", SHORT.key)]
    made = site.all_samples(parent=outputs.clip_id(1))
    assert Counter(sample["granularity"] for sample in made) == {"LVLT": 1, "IT": 1}


def test_a_parent_that_is_not_there_is_named(browse, output):
    damage.change_receipt(output, "LVST", SHORT.key, parents=["e" * 32])
    site = browse(output)
    found = site.json(f"/api/lineage?granularity=LVST&key={SHORT.key}")
    assert found["parents"] == [{"kind": "unknown", "id": "e" * 32}]


def test_a_sample_that_is_its_own_parent_ends(browse, output):
    damage.change_receipt(output, "LVLT", ALPHA.key, parents=[ALPHA.key])
    site = browse(output)
    found = site.json(f"/api/lineage?granularity=LVLT&key={ALPHA.key}")
    assert found["parents"][0]["id"] == ALPHA.key


def test_a_sample_that_is_its_own_parent_several_times_ends_and_all_parents_of_it_are_given(browse, output):
    """Twice in 16 generations would be 65,536 ancestors."""
    damage.change_receipt(output, "LVLT", ALPHA.key, parents=[ALPHA.key] * 3)
    found = browse(output).json(f"/api/lineage?granularity=LVLT&key={ALPHA.key}")
    assert [parent["id"] for parent in found["parents"]] == [ALPHA.key] * 3

    def num_ancestors(parents):
        return sum(1 + num_ancestors(parent["parents"]) for parent in parents)

    assert num_ancestors(found["parents"]) == 2000


def test_many_children_are_counted_and_the_first_are_given(crowd):
    site, records = crowd
    expected = sorted(record.key for _, record in records if "shared 4" in record.parents)
    assert sorted(sample["key"] for sample in site.all_samples(parent="shared 4", limit=5)) == expected


def test_losses_are_counted_by_reason_and_shown_with_their_detail(site):
    counts = site.json("/api/losses/counts")["counts"]
    found = {(row["granularity"], row["stage"], row["state"], row["reason"]): row["num"] for row in counts}
    assert found == {
        ("LVLT", "plan", "excluded", "too_few_clips"): 5,
        ("SVST", "ingest", "rejected", "missing_caption"): 2,
        ("LVLT", "build", "rejected", "media_missing"): 1,
    }
    page = site.json("/api/losses")
    assert [row["state"] for row in page["losses"]] == ["rejected"] * 3 + ["excluded"] * 5
    (loss,) = site.json("/api/losses", reason="media_missing")["losses"]
    assert (loss["detail"], loss["loss_id"], loss["source_id"]) == ("no file <b>here</b>", "c1", "gamma")
    assert json.loads(loss["row"]) == {"text": "<i>x</i>"}


@pytest.mark.parametrize(
    ("parameters", "num"),
    [
        ({"state": "excluded"}, 5),
        ({"stage": "ingest"}, 2),
        ({"granularity": "LVLT"}, 6),
        ({"granularity": "LVLT", "state": "rejected"}, 1),
        ({"q": "NO FILE"}, 1),
        ({"q": "e3"}, 1),
        ({"q": "%"}, 0),
        ({"reason": "x"}, 0),
    ],
)
def test_losses_are_filtered(site, parameters, num):
    assert len(site.json("/api/losses", **parameters)["losses"]) == num


def test_pages_of_losses_give_each_once(site):
    found, after = [], 0
    while after is not None:
        page = site.json("/api/losses", limit=3, after=after)
        found += [row["id"] for row in page["losses"]]
        after = page["after"]
    assert (len(found), len(set(found)), found) == (8, 8, sorted(found))


def test_a_loss_of_two_snapshots_counts_once_and_both_of_one_snapshot_count(browse, output):
    again = [outputs.LOSSES[1], ("SVST", "ingest", "rejected", "duplicate_clip", "", "d", "delta", "{}")]
    planned = [*outputs.EXCLUDED[:2], ("LVLT", "plan", "rejected", "overlaps_previous", "", "o", "zeta", "")]
    rejects = outputs.write_losses(output, "rejects-000001", [*again, planned[2]])
    excluded = outputs.write_losses(output, "excluded-LVLT-000001", planned)
    manifest = read_manifest(str(output))
    second = replace(manifest.snapshots[0], snapshot=1, granularities={}, tables=(rejects, excluded))
    outputs.publish(output, replace(manifest, snapshots=(*manifest.snapshots, second)))
    site = browse(output)
    counts = {row["reason"]: row["num"] for row in site.json("/api/losses/counts")["counts"]}
    # The last plan's exclusions count: what an earlier one left out may be used by now.
    expected = {"too_few_clips": 2, "missing_caption": 2, "media_missing": 1}
    assert counts == {**expected, "duplicate_clip": 1, "overlaps_previous": 1}
    first = browse(output, "--snapshot", 0)
    counts = {row["reason"]: row["num"] for row in first.json("/api/losses/counts")["counts"]}
    assert counts == {**expected, "too_few_clips": 5}


def test_a_loss_that_was_tried_again_counts_as_the_try_lost_it(browse, output):
    """One is used now, one is lost again for another reason in the snapshot that tried it: that loss stands."""
    lost = [("LVLT", "build", "rejected", "media_missing", "", f"t{number}", "theta", "") for number in range(2)]
    first = outputs.write_losses(output, "rejects-000000", [*outputs.LOSSES, *lost])
    again = outputs.write_losses(output, "rejects-000001", [(*lost[0][:3], "undecodable", *lost[0][4:])])
    tried = [{"granularity": "LVLT", "id": row[5], "reason": "media_missing", "snapshot": 1} for row in lost]
    retried = outputs.write_rows(output, "retried-000001", tried)
    manifest = read_manifest(str(output))
    assert first in manifest.snapshots[0].tables
    second = replace(manifest.snapshots[0], snapshot=1, granularities={}, tables=(again, retried))
    outputs.publish(output, replace(manifest, snapshots=(*manifest.snapshots, second)))
    losses = browse(output).json("/api/losses", q="theta")["losses"]
    assert [(row["loss_id"], row["reason"], row["snapshot"]) for row in losses] == [("t0", "undecodable", 1)]
    before = browse(output, "--snapshot", 0).json("/api/losses", q="theta")["losses"]
    assert [(row["loss_id"], row["reason"]) for row in before] == [("t0", "media_missing"), ("t1", "media_missing")]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Two tars as others write them: keys with folders, one key in both, a video, a picture, a text alone."""
    folder = tmp_path_factory.mktemp("foreign")
    video = outputs.write_video(folder / "v.mp4", [(2.0, outputs.RED), (1.0, outputs.BLUE)]).read_bytes()
    picture = outputs.image_samples(folder)[0][1]
    for number in range(2):
        with webdataset.TarWriter(str(folder / f"{number:05d}.tar")) as tar:
            facts = {"url": "https://example.org/1", "duration": 3.0, "caption": f"caption {number}"}
            tar.write({"__key__": f"part/{number}", "mp4": video, "json": facts})
            tar.write({"__key__": "both", "jpg": picture, "txt": f"a picture of red {number}"})
            tar.write({"__key__": f"text{number}", "txt": "words only"})
    return folder, video


def test_a_foreign_data_set_is_browsed(browse, foreign):
    folder, video = foreign
    site = browse(f"{folder}/{{00000..00001}}.tar")
    found = site.json("/api/dataset")
    assert (found["is_output"], found["granularities"]) == (False, [{"name": "", "samples": 6}])
    samples = site.all_samples()
    assert [sample["kind"] for sample in samples] == ["image", "image", "video", "video", "none", "none"]
    answer = site.ask("/media?key=part/1&tar=00001.tar", Range="bytes=8-99")
    assert (answer.status, answer.body) == (206, video[8:100])
    assert site.ask("/media?key=part%2F1").body == video
    texts = [site.json("/api/sample", key="both", tar=sample["tar"])["text"] for sample in samples[:2]]
    assert texts == ["a picture of red 0", "a picture of red 1"]
    answer = site.ask("/poster?key=text0")
    assert (answer.status, "no video or picture" in answer.content["error"]) == (422, True)
    assert site.ask("/poster?key=part/0").status == 200
    lineage = site.json("/api/lineage?key=part/0")
    assert (lineage["parents"], lineage["children"]) == ([], [])
    assert (site.json("/api/losses"), site.json("/api/losses/counts")) == (
        {"losses": [], "after": None},
        {"counts": []},
    )


def test_numbers_that_are_none_spoil_no_answer(browse, tmp_path):
    facts = b'{"caption": "odd", "fps": NaN, "duration": Infinity, "scores": {"a": NaN, "b": 0.5}}'
    damage.write_members(tmp_path / "x.tar", [("odd.json", facts), ("odd.jpg", b"no picture")])
    site = browse(tmp_path / "x.tar")
    (sample,) = site.all_samples()
    assert (sample["text"], sample["duration_s"]) == ("odd", None)
    found = site.json("/api/sample?key=odd")
    assert (found["fps"], found["scores"]) == (None, {"b": 0.5})
    answer = site.ask("/poster?key=odd")
    assert (answer.status, "its picture cannot be read" in answer.content["error"]) == (422, True)


@pytest.mark.parametrize("key", ["./0001", "../api/dataset", "a/../b", "a?b&c#d", r"caf\udce9", "caf%C3%A9"])
def test_a_sample_of_any_key_is_found(browse, foreign, tmp_path, key):
    _, video = foreign
    name = key.encode().decode("unicode_escape")
    damage.write_members(tmp_path / "x.tar", [(f"{name}.mp4", video), (f"{name}.json", b'{"granularity": "../a/b"}')])
    site = browse(tmp_path / "x.tar")
    (sample,) = site.all_samples()
    assert (sample["key"], sample["granularity"]) == (key, "../a/b")
    asked = urlencode({"granularity": "../a/b", "key": key})
    assert site.ask(f"/media?{asked}").body == video
    assert [site.ask(f"/{kind}?{asked}").status for kind in ("poster", "api/sample", "api/lineage")] == [200] * 3


def test_an_output_without_samples_is_browsed(browse, tmp_path):
    outputs.publish(tmp_path, replace(outputs.Manifest("empty"), snapshots=()))
    site = browse(tmp_path)
    assert site.json("/api/samples") == {"samples": [], "after": None}
    assert site.json("/api/dataset")["granularities"] == []
