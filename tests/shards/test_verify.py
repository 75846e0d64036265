"""Each test damages a published output for real; the finding must name check, shard and key."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import av
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gex_pipeline import object_store
from gex_pipeline.errors import TransientError
from gex_pipeline.shard_format import text_digest
from gex_pipeline.shards import across, findings
from gex_pipeline.shards.checks import verify_shard
from gex_pipeline.shards.findings import ShardCheck
from gex_pipeline.shards.source_clips import sorted_clips
from gex_pipeline.shards.target import ShardRef, open_target
from gex_pipeline.shards.verify import on_cores, shard_checks
from gex_pipeline.storage_failures import Kind
from tests.media.making_clips import Make, make_clip
from tests.report import outputs
from tests.shards import damage
from tests.shards.damage import ALPHA, BETA

LVLT, LVST, IT = (f"{name}/{name}-000000.tar" for name in ("LVLT", "LVST", "IT"))
SHORT_ALPHA = outputs.summary_of(ALPHA, {"rouge1": 0.25, "sentence_cosine": 0.6, "bertscore_f1": 0.8})
SHORT_BETA = outputs.summary_of(BETA, {"rouge1": 0.75, "sentence_cosine": 0.9, "bertscore_f1": 0.8})


def by_key(*records):
    return sorted(records, key=lambda record: record.key)


@pytest.mark.parametrize("options", [(), ("--deep",)])
def test_a_whole_output_has_nothing_wrong(verify, whole, options):
    done = verify(whole, *options)
    assert done.content == {"output": str(whole), "shards": 3, "wrong": 0, "notes": 0, "findings": []}
    assert done.code == 0


def test_worker_processes_find_the_same_as_one(gex, verify, output):
    damage.flip(damage.tar(output, "IT"), 700)
    (output / "LVLT" / "LVLT-000000.parquet").unlink()
    done = gex("verify", output, "--jobs", 2, "--json")
    assert (done.code, done.content) == (1, verify(output).content)
    assert {"sha256", "receipt"} <= set(done.checks())


def test_a_tar_cut_between_two_members_is_told_with_the_samples_it_lost(verify, output):
    path = damage.tar(output, "LVLT")
    first, last = by_key(ALPHA, BETA)
    path.write_bytes(path.read_bytes()[: damage.header_offset(path, 3)])
    done = verify(output)
    assert done.code == 1
    assert {"tar", "size", "sha256", "sample"} <= set(done.checks())
    (broken,) = done.findings("tar")
    assert "breaks off" in broken["found"]
    assert [(finding["shard"], finding["key"]) for finding in done.findings("sample")] == [(LVLT, last.key)]
    assert done.checks(first.key) == {}


def test_a_tar_cut_between_two_members_and_ended_again_is_found_by_its_receipt(verify, output):
    path = damage.tar(output, "LVLT")
    damage.write_members(path, damage.read_members(path)[:3])
    done = verify(output)
    assert "tar" not in done.checks()
    assert done.checks(by_key(ALPHA, BETA)[1].key) == {"sample": {LVLT}}


def test_a_tar_cut_inside_a_video_names_the_key(verify, output):
    path = damage.tar(output, "LVLT")
    offset, size = damage.member_offset(path, f"{by_key(ALPHA, BETA)[1].key}.mp4")
    path.write_bytes(path.read_bytes()[: offset + size // 2])
    done = verify(output)
    assert done.code == 1
    assert "tar" in done.checks()
    assert done.checks(by_key(ALPHA, BETA)[1].key)


def test_any_flipped_byte_is_found_by_the_digest(verify, output):
    path = damage.tar(output, "LVLT")
    offset, size = damage.member_offset(path, f"{ALPHA.key}.mp4")
    damage.flip(path, offset + size // 2)
    done = verify(output)
    assert done.code == 1
    assert done.checks()["sha256"] == {LVLT}


def test_a_flipped_byte_that_breaks_a_picture_names_the_key(verify, output):
    path = damage.tar(output, "LVLT")
    offset, _ = damage.member_offset(path, f"{BETA.key}.mp4")
    first_packet = damage.media_of(output, "LVLT", BETA.key).index(b"mdat") + 4
    damage.flip(path, offset + first_packet + 2)  # in the length of the first unit
    done = verify(output)
    assert done.checks(BETA.key) == {"video": {LVLT}}
    assert "undecodable" in done.findings("video")[0]["found"]
    assert done.checks(ALPHA.key) == {}


def test_all_pictures_are_decoded_where_the_digest_is_wrong(verify, output):
    """A picture in the middle does not decode; the first and the last one do."""
    make = Make(num_frames=35, size_px=outputs.SIZE_PX, fps=outputs.FPS, options={"preset": "ultrafast", "g": "10"})
    video = make_clip(output.parent / "groups.mp4", 1, make)
    with av.open(str(video)) as container:
        keys = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.is_keyframe]
    beta = damage.media_of(output, "LVLT", BETA.key)
    damage.replace_shard(output, "LVLT", [(ALPHA, video.read_bytes()), (BETA, beta)])
    assert verify(output).code == 0
    offset, _ = damage.member_offset(damage.tar(output, "LVLT"), f"{ALPHA.key}.mp4")
    place, size = keys[1]
    for number in range(8, size):  # behind the length and the header of its first unit
        damage.flip(damage.tar(output, "LVLT"), offset + place + number)
    done = verify(output, "--granularity", "LVLT")
    assert done.checks() == {"sha256": {LVLT}, "video": {LVLT}}
    assert [finding["key"] for finding in done.findings("video")] == [ALPHA.key]
    assert "decoding stopped after 10 of 35 frames" in done.findings("video")[0]["found"]


def test_two_samples_that_a_dotted_key_merges_are_told_apart(verify, output):
    names = {ALPHA.key: "v_00:00:01.000_00:00:02.000", BETA.key: "v_00:00:01.500_00:00:02.500"}
    path = damage.tar(output, "LVLT")

    def rename(name: str, content: bytes) -> tuple[str, bytes]:
        key, _, extension = name.partition(".")
        return f"{names[key]}.{extension}", content

    damage.change_members(path, rename)
    done = verify(output)
    assert done.code == 1
    (finding,) = done.findings("key")
    assert (finding["shard"], finding["key"]) == (LVLT, "v_00:00:01")
    assert finding["found"].startswith("2 samples read as one: ")
    assert {finding["key"] for finding in done.findings("sample")} == {ALPHA.key, BETA.key, "v_00:00:01"}
    foreign = verify(path)
    assert foreign.code == 1
    assert [finding["key"] for finding in foreign.findings("key")] == ["v_00:00:01"]


def test_summaries_swapped_in_the_tar_alone_are_unlike_the_receipt(verify, output):
    texts = {
        f"{SHORT_ALPHA.key}.txt": SHORT_BETA.text.encode(),
        f"{SHORT_BETA.key}.txt": SHORT_ALPHA.text.encode(),
    }
    damage.change_members(damage.tar(output, "LVST"), lambda name, content: (name, texts.get(name, content)))
    done = verify(output)
    assert done.code == 1
    found = {(item["shard"], item["key"], item["found"], item["expected"]) for item in done.findings("text")}
    assert found == {
        (LVST, SHORT_ALPHA.key, SHORT_BETA.text, SHORT_ALPHA.text),
        (LVST, SHORT_BETA.key, SHORT_ALPHA.text, SHORT_BETA.text),
    }


def test_summaries_swapped_everywhere_in_the_shard_are_unlike_the_table(verify, output):
    media = [(record, damage.media_of(output, "LVST", record.key)) for record in (SHORT_ALPHA, SHORT_BETA)]
    texts = [SHORT_BETA.text, SHORT_ALPHA.text]
    damage.replace_shard(
        output, "LVST", [(replace(item, text=text), video) for (item, video), text in zip(media, texts, strict=True)]
    )
    done = verify(output)
    assert done.code == 1
    assert done.checks() == {"table": {LVST}}
    assert {finding["key"] for finding in done.findings("table")} == {SHORT_ALPHA.key, SHORT_BETA.key}


def test_a_summary_of_another_text_is_found_by_the_digest_it_carries(verify, output):
    videos = {record.key: damage.media_of(output, "LVST", record.key) for record in (SHORT_ALPHA, SHORT_BETA)}
    wrong = replace(SHORT_ALPHA, source_text_digest=text_digest(BETA.text))
    damage.replace_shard(output, "LVST", [(wrong, videos[wrong.key]), (SHORT_BETA, videos[SHORT_BETA.key])])
    done = verify(output)
    assert done.checks(wrong.key) == {"summary": {LVST}, "table": {LVST}}
    assert done.checks(SHORT_BETA.key) == {}
    assert "summary" in verify(damage.tar(output, "LVST"), damage.tar(output, "LVLT")).checks(wrong.key)


def test_a_missing_receipt_and_a_missing_tar_are_told(verify, output):
    (output / "LVLT" / "LVLT-000000.parquet").unlink()
    damage.tar(output, "IT").unlink()
    done = verify(output)
    assert done.code == 1
    assert done.checks()["receipt"] == {LVLT}
    assert done.checks()["tar"] == {IT}
    assert done.checks()["lineage"] == {LVST}  # nothing says any more what the summaries were made of


def test_an_unreadable_receipt_is_told(verify, gex, output):
    (output / "IT" / "IT-000000.parquet").write_bytes(b"PAR1 no")
    done = verify(output)
    assert (done.code, done.checks()["receipt"]) == (1, {IT})
    listed = gex("ls", output, "--json")
    assert listed.code == 0
    assert {row["shard"]: row["state"] for row in listed.content["shards"]}[IT] == "receipt missing"
    assert "no receipt can be read" in listed.err


def test_a_receipt_damaged_inside_is_told_and_stops_no_other_check(verify, gex, output):
    path = output / "LVLT" / "LVLT-000000.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(400) + content[404:])  # pages, not the footer
    damage.tar(output, "IT").unlink()
    done = verify(output)
    assert done.code == 1
    assert done.checks()["tar"] == {IT}
    assert {"receipt", "tables"} & set(done.checks())
    listed = gex("ls", output)
    assert (listed.code, "cannot be read" in listed.err) == (1, True)


def test_a_missing_table_is_told(verify, output):
    (output / "tables" / "summaries-LVST-000000.parquet").unlink()
    done = verify(output)
    assert (done.code, done.checks()) == (1, {"table": {"tables/summaries-LVST-000000.parquet"}})


@pytest.mark.parametrize("kept", [0, 100])
def test_every_damaged_table_is_told_by_its_footer(verify, output, kept):
    manifest = json.loads((output / "dataset.json").read_text())
    (paths,) = [snapshot["tables"] for snapshot in manifest["snapshots"]]
    for path in paths:
        (output / path).write_bytes((output / path).read_bytes()[:kept])
    done = verify(output)
    assert (done.code, done.checks()["table"]) == (1, set(paths))
    assert all(finding["found"].startswith("damaged: ") for finding in done.findings("table"))


def test_one_damaged_table_of_rejects_is_one_finding_and_no_shard_is_to_be_built_again(gex, verify, output):
    path = output / "tables" / "rejects-000000.parquet"
    path.write_bytes(path.read_bytes()[:100])
    done = verify(output)
    assert (done.code, done.checks()) == (1, {"table": {"tables/rejects-000000.parquet"}})
    assert gex("verify", output, "--jobs", 1).out.splitlines()[-2:] == [
        "3 shards verified: 1 things are wrong",
        "next     put the tables back from a copy; they are not built again",
    ]


def test_a_damaged_table_of_clips_stops_neither_the_other_checks_nor_looking_deep(verify, gex, output):
    path = output / "tables" / "clips-000000.parquet"
    path.write_bytes(path.read_bytes()[:100])
    damage.flip(damage.tar(output, "IT"), 700)
    done = verify(output, "--deep")
    assert (done.code, done.checks()["table"]) == (1, {"tables/clips-000000.parquet"})
    assert done.checks()["sha256"] == {IT}
    assert [line.split()[0:3] for line in gex("verify", output, "--jobs", 1).out.splitlines()[-2:]] == [
        ["next", "put", "the"],
        ["next", "gex", "run"],
    ]


def test_missing_clips_are_told_without_advice_to_build_shards_again(gex, output):
    (output / "tables" / "clips-000000.parquet").unlink()
    done = gex("verify", output, "--jobs", 1)
    assert done.code == 1
    assert "tables/clips-000000.parquet" in done.out
    assert "--check-bytes" not in done.out


def test_of_one_broken_table_a_bounded_number_is_told_and_all_are_counted(gex, verify, output, monkeypatch):
    """One missing table of clips made a finding a sample, ten million of them."""
    (output / "tables" / "clips-000000.parquet").unlink()
    everything = verify(output).content
    monkeypatch.setattr(across, "MOST_TOLD", 1)
    monkeypatch.setattr(findings, "MOST_TOLD", 1)
    done = verify(output)
    assert (done.code, done.content["wrong"]) == (1, everything["wrong"])
    untold = sum(finding["check"] == "lineage" for finding in everything["findings"]) - 2
    told = [finding for finding in done.content["findings"] if finding["check"] == "lineage"]
    assert [(finding["shard"], finding["num"]) for finding in told] == [(IT, 1), (LVLT, 1), ("", untold)]
    assert told[-1]["found"] == f"{untold} more"
    assert done.checks()["table"] == {"tables/clips-000000.parquet"}
    assert f"{everything['wrong']} things are wrong" in gex("verify", output, "--jobs", 1).out


def test_what_is_not_told_of_other_granularities_hides_nothing_of_the_chosen_one(verify, output, monkeypatch):
    (output / "tables" / "summaries-LVST-000000.parquet").unlink()
    (output / "tables" / "clips-000000.parquet").unlink()
    before = verify(output, "--granularity", "LVLT")
    monkeypatch.setattr(across, "MOST_TOLD", 2)
    monkeypatch.setattr(findings, "MOST_TOLD", 2)
    assert verify(output, "--granularity", "LVLT").content == before.content
    assert before.checks()["lineage"] == {LVLT}


def test_every_shard_is_told_and_of_each_check_a_thousand_more():
    told = findings.Told()
    for shard in ("a", "b", "c"):
        told.add([findings.Finding(shard, f"{key:04d}", "text", "", "a text") for key in range(800)])
        told.add([findings.Finding(shard, "", "sha256", "x", "y")] * 2)
    told.add([findings.Finding("a", "k", "source", "gone", "a clip", is_note=True)])
    told.add([findings.rest("text", 5000)])
    found = told.in_order()
    assert {(one.shard, one.check) for one in found if one.shard} == {
        *((shard, check) for shard in "abc" for check in ("text", "sha256")),
        ("a", "source"),
    }
    assert sum(one.check == "text" for one in found) == findings.MOST_TOLD + 2  # the first of c, and one that counts
    assert sum(one.num for one in found if one.check == "text") == 3 * 800 + 5000
    assert [one.num for one in found if one.check == "sha256"] == [1, 1, 1]
    assert found[-1].is_note
    assert found[-2] == findings.rest("text", 5000 + 3 * 800 - findings.MOST_TOLD - 1)


def test_an_output_that_was_moved_has_its_tables(verify, output):
    moved = output.rename(output.parent / "moved")
    assert verify(moved).content["findings"] == []


def test_a_worker_that_dies_is_a_finding_of_its_shard_only(whole):
    dying = ShardCheck(ShardRef(LVLT, LVLT), output_uri=Deadly())
    sound = ShardCheck(ShardRef(str(damage.tar(whole, "IT")), IT))
    found = [finding for findings in on_cores([dying, sound], 2) for finding in findings]
    assert [(finding.shard, finding.check) for finding in found] == [(LVLT, "crash")]


class Deadly:
    """Ends the process that unpickles it, as a decoder does that crashes."""

    def __reduce__(self):
        return os._exit, (1,)


def test_a_sample_twice_in_a_tar_is_a_duplicate(verify, output):
    path = damage.tar(output, "LVLT")
    members = damage.read_members(path)
    damage.write_members(path, members + members[:3])
    done = verify(output)
    first = by_key(ALPHA, BETA)[0]
    assert done.code == 1
    assert done.checks(first.key) == {"duplicate": {LVLT}, "place": {LVLT}}  # the copy lies where no receipt says


def test_a_sample_in_two_shards_is_a_duplicate_of_both(verify, output):
    video = damage.media_of(output, "LVLT", ALPHA.key)
    again = outputs.write_shard(output, "LVLT", [(ALPHA, video)], number=1)
    manifest = json.loads((output / "dataset.json").read_text())
    manifest["snapshots"][0]["granularities"]["LVLT"]["shards"].append(vars(again))
    (output / "dataset.json").write_text(json.dumps(manifest))
    damage.write_sizes(output)
    done = verify(output)
    assert (done.code, done.checks()) == (1, {"duplicate": {LVLT, "LVLT/LVLT-000001.tar"}})
    assert {finding["key"] for finding in done.findings("duplicate")} == {ALPHA.key}


def test_members_of_a_sample_apart_from_each_other_are_told(verify, output):
    path = damage.tar(output, "LVLT")
    members = damage.read_members(path)
    damage.write_members(path, [*members[:2], *members[3:], members[2]])
    done = verify(output)
    first = by_key(ALPHA, BETA)[0]
    assert "adjacency" in done.checks(first.key)


def test_an_empty_text_is_told(verify, output):
    path = damage.tar(output, "LVLT")
    damage.change_members(path, lambda name, content: (name, b" \n" if name == f"{ALPHA.key}.txt" else content))
    done = verify(output)
    assert done.code == 1
    assert done.checks(ALPHA.key)["text"] == {LVLT}
    assert "empty" in {finding["found"] for finding in done.findings("text")}
    assert "empty" in {finding["found"] for finding in verify(path).findings("text")}


def test_a_wrong_duration_in_the_json_is_unlike_receipt_and_video(verify, output):
    path = damage.tar(output, "LVLT")
    damage.change_json(path, ALPHA.key, duration_s=70.0)
    done = verify(output)
    (finding,) = [finding for finding in done.findings("json") if finding["key"] == ALPHA.key]
    assert (finding["found"], finding["expected"]) == ("duration_s 70.0", "duration_s 7.0")
    assert "the video holds 7.000 s" in {finding["found"] for finding in verify(path).findings("duration")}


def test_segments_that_do_not_add_up_to_the_video_are_told(verify, output):
    video = damage.media_of(output, "LVLT", ALPHA.key)
    first, *others = ALPHA.segments
    wrong = replace(ALPHA, segments=(replace(first, duration_s=4.0), *others))
    damage.replace_shard(output, "LVLT", [(wrong, video), (BETA, damage.media_of(output, "LVLT", BETA.key))])
    done = verify(output)
    assert done.checks(ALPHA.key) == {"duration": {LVLT}, "segments": {LVLT}}


def test_segments_in_the_wrong_order_are_found_by_looking_deep(verify, output):
    _, members = outputs.joined_samples()[0]
    pieces = outputs._pieces(members)
    video = outputs.write_video(output / "wrong.mp4", [pieces[1], pieces[0], pieces[2]]).read_bytes()
    (output / "wrong.mp4").unlink()
    damage.replace_shard(output, "LVLT", [(ALPHA, video), (BETA, damage.media_of(output, "LVLT", BETA.key))])
    assert verify(output).code == 0
    done = verify(output, "--deep")
    assert (done.code, done.checks()) == (1, {"joint": {LVLT}})
    assert {finding["key"] for finding in done.findings("joint")} == {ALPHA.key}
    ends = {finding["found"].partition(" differs")[0] for finding in done.findings("joint")}
    assert ends == {f"{end} frame of segment {number}" for end in ("first", "last") for number in (0, 1)}


def test_clips_inside_full_source_videos_are_compared_where_they_are_cut(verify, output, tmp_path):
    sources = {"alpha": [(2, outputs.RED), (2, outputs.GREEN), (5, outputs.GREY), (3, outputs.BLUE)]}
    sources["beta"] = [(1, outputs.RED), (2, outputs.YELLOW), (2, outputs.RED), (1, outputs.GREY)]
    manifest = json.loads((output / "dataset.json").read_text())
    manifest["snapshots"][0]["recipe"]["source"] = {"media": {"kind": "videos"}}
    (output / "dataset.json").write_text(json.dumps(manifest))
    for name, pieces in sources.items():
        outputs.write_video(tmp_path / f"{name}.mp4", pieces)
    table = output / "tables" / "clips-000000.parquet"
    rows = pq.read_table(table)
    uris = [str(tmp_path / f"{source}.mp4") for source in rows["source_id"].to_pylist()]
    pq.write_table(rows.set_column(rows.column_names.index("media_uri"), "media_uri", pa.array(uris)), table)
    assert verify(output, "--deep").content["findings"] == []
    outputs.write_video(tmp_path / "beta.mp4", [(3, outputs.YELLOW), (3, outputs.BLUE)])
    done = verify(output, "--deep", "--granularity", "LVLT")
    assert (done.code, done.checks()) == (1, {"joint": {LVLT}})
    assert {finding["key"] for finding in done.findings("joint")} == {BETA.key}
    assert {finding["found"][:26] for finding in done.findings("joint")} == {
        "first frame of segment 1 d",
        "last frame of segment 1 di",
    }


def test_a_picture_of_another_clip_is_found_by_looking_deep(verify, output):
    samples = [(record, content) for record, content in outputs.image_samples(output.parent)]
    (first, picture), (second, other), *rest = samples
    damage.replace_shard(output, "IT", [(first, other), (second, picture), *rest])
    done = verify(output, "--deep", "--granularity", "IT")
    assert (done.code, done.checks()) == (1, {"joint": {IT}})
    assert {finding["key"] for finding in done.findings("joint")} == {first.key, second.key}


def test_a_source_clip_that_is_gone_is_only_a_note(verify, tmp_path):
    output = damage.make_whole(tmp_path)
    (tmp_path / "scratch" / "clip0.mp4").unlink()
    done = verify(output, "--deep")
    assert (done.code, done.content["wrong"]) == (0, 0)
    assert {finding["check"] for finding in done.content["findings"]} == {"source"}


def test_a_store_of_clips_that_does_not_answer_just_now_is_no_damage(gex, output, monkeypatch):
    """It was told as a damaged video of each sample, so that nobody tried again."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setitem(object_store._PATIENCE_S, Kind.down, 0)
    table = output / "tables" / "clips-000000.parquet"
    rows = pq.read_table(table)
    uris = [f"s3://bucket/{Path(uri).name}" for uri in rows["media_uri"].to_pylist()]
    pq.write_table(rows.set_column(rows.column_names.index("media_uri"), "media_uri", pa.array(uris)), table)
    target = open_target([str(output)], granularity="LVLT")
    with sorted_clips(target) as clips:
        (check,) = shard_checks(target, clips, is_deep=True)
        with pytest.raises(TransientError, match=r"storage failed for 's3://bucket/clip\d.mp4': the store did not ans"):
            verify_shard(check)
    done = gex("verify", output, "--deep", "--granularity", "LVLT", "--jobs", 1)
    assert (done.code, done.out) == (75, "")
    assert "the store did not answer" in done.err


def test_files_that_no_manifest_lists_are_told(verify, output):
    outputs.write_shard(output, "LVLT", [(ALPHA, b"x")], number=5)
    (output / "LVLT" / "notes.txt").write_text("mine")
    done = verify(output)
    assert (done.code, done.content["notes"]) == (0, 2)
    assert {(item["shard"], item["found"]) for item in done.findings("orphan")} == {
        ("LVLT/LVLT-000005.tar", "a shard that is not published"),
        ("LVLT/notes.txt", "a file of no shard"),
    }
    (output / "LVLT" / "LVLT-000005.parquet").unlink()
    done = verify(output)
    assert (done.code, done.checks()) == (1, {"orphan": {"LVLT/LVLT-000005.tar"}})


def test_sizes_that_differ_from_the_manifest_are_told(verify, output):
    (output / "IT" / "sizes.json").write_text('{"IT-000000.tar": 4}')
    done = verify(output)
    assert (done.code, done.checks()) == (1, {"sizes": {"IT/sizes.json"}})


def test_a_manifest_that_says_other_figures_than_the_receipt_is_told(verify, output):
    manifest = json.loads((output / "dataset.json").read_text())
    manifest["snapshots"][0]["granularities"]["IT"]["shards"][0]["num_samples"] = 7
    (output / "dataset.json").write_text(json.dumps(manifest))
    damage.write_sizes(output)
    done = verify(output)
    assert done.checks() == {"manifest": {IT}}
    assert (done.findings("manifest")[0]["found"]) == "num_samples 7"


def test_a_clip_s_caption_that_changed_is_unlike_the_table(verify, output):
    table = output / "tables" / "clips-000000.parquet"
    rows = pq.read_table(table)
    changed = ["another caption" if text == "yellow" else text for text in rows["text"].to_pylist()]
    pq.write_table(rows.set_column(rows.column_names.index("text"), "text", pa.array(changed)), table)
    done = verify(output)
    assert done.checks(BETA.key) == {"table": {LVLT}}


@pytest.mark.parametrize("column", ["start_s", "end_s", "source_id"])
def test_a_clip_s_place_in_its_source_that_changed_is_unlike_the_table(verify, output, column):
    table = output / "tables" / "clips-000000.parquet"
    rows = pq.read_table(table)
    other = {"start_s": 0.25, "end_s": 99.5, "source_id": "another"}[column]
    changed = [other if row["text"] == "yellow" else row[column] for row in rows.select(["text", column]).to_pylist()]
    pq.write_table(rows.set_column(rows.column_names.index(column), column, pa.array(changed)), table)
    done = verify(output)
    assert done.checks(BETA.key) == {"table": {LVLT}}


def test_a_referenced_video_is_verified_where_it_lies(verify, output):
    shard = damage.tar(output, "LVLT")
    samples = []
    for record in (SHORT_ALPHA, SHORT_BETA):
        offset, size = damage.member_offset(shard, f"{record.parents[0]}.mp4")
        place = {"media_uri": LVLT, "media_offset_bytes": offset, "media_size_bytes": size}
        samples.append((replace(record, made_by="reference", **place), b""))
    damage.replace_shard(output, "LVST", samples)
    assert verify(output).content["findings"] == []
    last = max(samples, key=lambda item: item[0].media_offset_bytes)[0]
    shard.write_bytes(shard.read_bytes()[: last.media_offset_bytes + 10])
    assert verify(output, "--granularity", "LVST").checks(last.key) == {"reference": {LVST}}


def test_only_the_chosen_granularity_is_told_about(verify, output):
    damage.flip(damage.tar(output, "IT"), 700)
    done = verify(output, "--granularity", "LVST")
    assert (done.code, done.content["shards"]) == (0, 1)


def test_a_person_sees_a_table_and_a_verdict(gex, output):
    Path(damage.tar(output, "IT")).unlink()
    done = gex("verify", output, "--jobs", 1)
    assert done.code == 1
    (line,) = [line for line in done.out.splitlines() if line.split()[:1] == [IT]]
    assert line.split()[1:4] == ["-", "tar", "missing"]
    assert done.out.splitlines()[-2:] == [
        "3 shards verified: 1 things are wrong",
        f"next     gex run {output} --check-bytes    builds damaged shards again",
    ]


@pytest.mark.slow
def test_a_ray_job_finds_the_same(gex, verify, output):
    damage.flip(damage.tar(output, "IT"), 700)
    path = output / "tables" / "clips-000000.parquet"
    table = pq.read_table(path)
    uris = [uri.replace("clip1.mp4", "clip0.mp4") for uri in table["media_uri"].to_pylist()]
    pq.write_table(table.set_column(table.column_names.index("media_uri"), "media_uri", pa.array(uris)), path)
    done = gex("verify", output, "--ray", "--deep", "--json")
    assert (done.code, done.content) == (1, verify(output, "--deep").content)
    assert {"joint", "sha256"} <= set(done.checks())
