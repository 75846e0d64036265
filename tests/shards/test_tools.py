"""The looking tools on an output of ours."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gex_pipeline.shards import looking
from gex_pipeline.shards.manifest import Manifest, read_manifest
from gex_pipeline.shards.target import open_target
from tests.report import outputs
from tests.shards import damage
from tests.shards.damage import ALPHA, BETA

SHORT_ALPHA = outputs.summary_of(ALPHA, {})


def test_the_list_has_samples_bytes_hours_and_state(gex, whole):
    rows = {row["granularity"]: row for row in gex("ls", whole, "--json").content["shards"]}
    lvlt = rows["LVLT"]
    assert (lvlt["shard"], lvlt["snapshot"], lvlt["samples"]) == ("LVLT/LVLT-000000.tar", 0, 2)
    assert (lvlt["duration_s"], lvlt["state"]) == (10.0, "complete")
    assert lvlt["bytes"] == damage.tar(whole, "LVLT").stat().st_size
    assert (rows["IT"]["samples"], rows["IT"]["duration_s"]) == (5, 0.0)
    done = gex("ls", whole)
    assert done.out.splitlines()[-1].startswith("3 shards, 9 samples, ")


def test_the_list_tells_a_shard_that_is_not_whole(gex, output):
    path = damage.tar(output, "LVLT")
    path.write_bytes(path.read_bytes()[:1000])
    damage.tar(output, "IT").unlink()
    rows = {row["granularity"]: row["state"] for row in gex("ls", output, "--json").content["shards"]}
    assert rows == {"LVLT": "size differs", "LVST": "complete", "IT": "tar missing"}
    foreign = gex("ls", path, "--json")
    assert foreign.content["shards"][0]["state"] == "damaged"
    assert "not a whole tar" in foreign.err or "breaks off" in foreign.err


def test_a_sample_is_shown_with_its_lineage_up_to_the_clips(gex, whole):
    content = gex("show", SHORT_ALPHA.key[:8], whole, "--json").content
    assert (content["key"], content["text"]) == (SHORT_ALPHA.key, SHORT_ALPHA.text)
    assert content["scores"] == {"rouge1": 0.25, "sentence_cosine": 0.6, "bertscore_f1": 0.8}
    assert [member["extension"] for member in content["members"]] == ["mp4", "txt", "json"]
    lineage = [(item["depth"], item["kind"], item["id"]) for item in content["lineage"]]
    assert lineage == [(1, "sample", ALPHA.key), *((2, "clip", outputs.clip_id(index)) for index in range(3))]
    assert content["lineage"][2]["media_uri"].endswith("clip1.mp4")
    filtered = gex("show", SHORT_ALPHA.key, whole, "--json", "--granularity", "LVST").content
    assert filtered["lineage"] == content["lineage"]


def test_a_lineage_at_a_snapshot_knows_no_clips_of_later_ones(gex, output):
    """Its clips came with snapshot 1; at snapshot 0 nothing tells where they lie."""
    manifest = read_manifest(str(output))
    (first,) = manifest.snapshots
    (table,) = (path for path in first.tables if "clips-" in path)
    (output / table).rename(output / "tables" / "clips-000001.parquet")
    tables = tuple(path for path in first.tables if path != table)
    second = replace(first, snapshot=1, granularities={}, tables=("tables/clips-000001.parquet",))
    outputs.publish(output, replace(manifest, snapshots=(replace(first, tables=tables), second)))

    def places(place):
        return [item.get("media_uri") for item in gex("show", ALPHA.key, place, "--json").content["lineage"]]

    assert all(uri.endswith(".mp4") for uri in places(output))
    assert places(f"{output}@0") == [None] * len(ALPHA.parents)


def test_a_person_sees_the_segments_on_a_time_line(gex, whole):
    done = gex("show", ALPHA.key, whole)
    lines = [line for line in done.out.splitlines() if "█" in line]
    assert [line.split()[0] for line in lines] == ["0:00", "0:02", "0:04"]
    starts = [line.index("█") for line in lines]
    assert starts == sorted(set(starts))
    assert "alpha 0:09-0:12" in lines[2]


def test_control_characters_of_a_text_do_not_reach_the_terminal(gex, output):
    path = damage.tar(output, "LVLT")
    text = b"red \x1b[31m\x07 and \xe2\x80\xae back"
    damage.change_members(path, lambda name, content: (name, text if name.endswith(".txt") else content))
    for tool in (["show", ALPHA.key], ["find", "true"], ["verify"]):
        done = gex(*tool, path)
        assert not {"\x1b", "\x07", "\u202e"} & set(done.out)


def test_control_characters_of_a_name_do_not_reach_the_terminal(gex, tmp_path):
    hostile = "evil\x1b[2J\x1b]0;pwned\x07"
    damage.write_members(tmp_path / f"{hostile}.tar", [(f"{hostile}.txt", b"text")])
    (tmp_path / f"{hostile}-cut.tar").write_bytes((tmp_path / f"{hostile}.tar").read_bytes()[:1024])
    for tool in (["ls"], ["find", "true"], ["export", hostile], ["export", hostile], ["sample", "1"]):
        done = gex(*tool, tmp_path, *(["--to", tmp_path / "to"] if tool[0] in ("export", "sample") else []))
        assert "\x1b" not in done.out + done.err
        assert "\x07" not in done.out + done.err
        assert "evil\ufffd[2J" in done.out + done.err


def test_samples_are_found_by_sql_over_columns_and_scores(gex, whole):
    found = gex("find", "scores['rouge1'] > 0.5 AND duration_s < 4", whole, "--json").content
    assert (found["num"], [row["source_id"] for row in found["samples"]]) == (1, ["beta"])
    assert gex("find", "num_words > 1000", whole, "--json").content == {"num": 0, "samples": []}
    assert (
        gex("find", "granularity = 'IT'", whole, "--limit", 2).out.splitlines()[-1].startswith("5 samples, the first 2")
    )


@pytest.mark.parametrize(
    ("predicate", "message"),
    [
        ("1 = 1; DROP TABLE x", "is not one SQL condition"),
        ("key IN (SELECT key FROM samples)", "no subqueries"),
        ("no_such_column > 1", "the columns are key, granularity"),
        ("num_words > 'many'", "num_words > 'many'"),
        ("", "is not one SQL condition"),
    ],
)
def test_a_wrong_condition_ends_with_2_and_one_message(gex, whole, predicate, message):
    done = gex("find", predicate, whole)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "zzzz", "{}"], "no sample's key is or begins with 'zzzz'"),
        (["show", "", "{}"], "is the beginning of several keys"),
        (["export", "zzzz", "{}"], "no sample's key"),
        (["ls", "{}/nothing"], "is neither an output"),
        (["ls", "{}/*.mp4"], "is neither an output"),
        (["verify", "{}", "--snapshot", "4"], "has no snapshot 4; it has 0"),
        (["stats", "{}", "--granularity", "XX"], "has no granularity 'XX'; it has LVLT, LVST, IT"),
        (["ls", "{}/LVLT/LVLT-000000.tar", "--snapshot", "0"], "only an output has snapshots"),
        (["ls", "{}/dataset.txt"], "is neither an output"),
        (["diff", "{}@7", "{}"], "has no snapshot 7"),
        (["ls", "{}@7"], "has no snapshot 7"),
        (["ls", "{}@0", "--snapshot", "1"], "names snapshot 0, and --snapshot 1; say one of them"),
        (["ls", "{}/LVLT@0"], "is neither an output"),
    ],
)
def test_what_is_not_there_ends_with_1_and_one_message(gex, whole, arguments, message):
    done = gex(*(argument.format(whole) for argument in arguments))
    assert (done.code, done.out) == (1, "")
    assert message in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [[], ["fly"], ["ls"], ["sample", "0", "x"], ["show", "a"], ["ls", "x", "--wrong"]]
)
def test_wrong_usage_ends_with_2(gex, arguments):
    assert gex(*arguments).code == 2


def test_statistics_are_those_of_the_samples(gex, whole, tmp_path):
    content = gex("stats", whole, "--json", "--plot", tmp_path / "s.png").content
    rows = {(row["granularity"], row["quantity"]): row for row in content["statistics"]}
    lvlt = rows["LVLT", "duration_s"]
    assert (lvlt["num"], lvlt["mean"], lvlt["min"], lvlt["max"], lvlt["std"]) == (2, 5.0, 3.0, 7.0, 2.0)
    assert rows["LVST", "score rouge1"]["mean"] == 0.5
    assert ("IT", "duration_s") not in rows
    for histogram in content["histograms"]:
        for name, counts in histogram["counts"].items():
            assert sum(counts) == rows[name, histogram["quantity"]]["num"]
            assert len(counts) == len(histogram["edges"]) - 1
    kinds = [(row["granularity"], row["codec"], row["made_by"], row["samples"]) for row in content["media"]]
    assert kinds[0] == ("IT", "jpeg", "frame", 5)
    assert ("LVLT", "h264", "encode", 1) in kinds
    assert np.asarray(Image.open(tmp_path / "s.png").convert("RGB")).std() > 10
    assert "█" in gex("stats", whole).out


def test_an_exported_sample_has_the_bytes_of_its_members(gex, whole, tmp_path):
    done = gex("export", ALPHA.key[:10], whole, "--to", tmp_path / "x", "--json")
    members = dict(damage.read_members(damage.tar(whole, "LVLT")))
    files = [Path(file) for file in done.content["files"]]
    assert [file.name for file in files] == [f"{ALPHA.key}.{extension}" for extension in ("mp4", "txt", "json")]
    assert all(file.read_bytes() == members[file.name] for file in files)
    again = gex("export", ALPHA.key, whole, "--to", tmp_path / "x")
    assert (again.code, "is there already" in again.err) == (1, True)


def test_a_referenced_video_is_exported_too(gex, output, tmp_path):
    offset, size = damage.member_offset(damage.tar(output, "LVLT"), f"{ALPHA.key}.mp4")
    place = {"media_uri": "LVLT/LVLT-000000.tar", "media_offset_bytes": offset, "media_size_bytes": size}
    damage.replace_shard(output, "LVST", [(replace(SHORT_ALPHA, made_by="reference", **place), b"")])
    files = gex("export", SHORT_ALPHA.key, output, "--to", tmp_path / "x", "--json").content["files"]
    (video,) = [Path(file) for file in files if file.endswith(".mp4")]
    assert video.read_bytes() == damage.media_of(output, "LVLT", ALPHA.key)


def test_the_same_seed_picks_the_same_samples(gex, whole, tmp_path):
    picked = [
        gex("sample", 3, whole, "--seed", seed, "--to", tmp_path / str(number), "--json").content["keys"]
        for number, seed in enumerate((1, 1, 2))
    ]
    assert picked[0] == picked[1] != picked[2]
    assert len(set(picked[0])) == 3
    assert len(gex("sample", 100, whole, "--to", tmp_path / "all", "--json").content["keys"]) == 9


def test_the_sheet_shows_the_frames_of_the_chosen_samples(gex, whole, tmp_path):
    done = gex("sheet", whole, "--where", f"key = '{ALPHA.key}'", "--out", tmp_path / "s.png", "--json")
    assert done.content["keys"] == [ALPHA.key]
    picture = np.asarray(Image.open(tmp_path / "s.png").convert("RGB")).astype(int)
    columns = [
        np.flatnonzero((np.abs(picture - colour).max(axis=2) < 40).sum(axis=0) > 40)
        for colour in (outputs.RED, outputs.GREEN, outputs.BLUE, outputs.YELLOW)
    ]
    red, green, blue, yellow = columns
    assert red.max() < green.min() <= green.max() < blue.min()
    assert yellow.size == 0


def test_the_sheet_shows_pictures_too(gex, whole, tmp_path):
    done = gex("sheet", whole, "--granularity", "IT", "--samples", 5, "--out", tmp_path / "s.png")
    assert (done.code, done.out.strip()) == (0, str(tmp_path / "s.png"))
    picture = np.asarray(Image.open(tmp_path / "s.png").convert("RGB")).astype(int)
    for colour in (outputs.RED, outputs.GREEN, outputs.BLUE, outputs.YELLOW, outputs.GREY):
        assert (np.abs(picture - colour).max(axis=2) < 40).sum() > 1000


@pytest.mark.parametrize(("key", "extension"), [("", "/../victim"), (".", "/victim"), ("a", "mp4/../../victim")])
def test_no_name_in_a_receipt_leads_the_sheet_out_of_its_folder(gex, output, tmp_path, monkeypatch, key, extension):
    """The media were fetched as "<key>.<extension>", both out of a receipt that anyone may have written."""
    (scratch := tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    (scratch / "victim").write_text("mine")
    damage.change_receipt(output, "LVLT", ALPHA.key, key=key, media_extension=extension, text_digest="0")
    arguments = ("--where", "text_digest = '0'", "--granularity", "LVLT", "--out", tmp_path / "s.png")
    assert gex("sheet", output, *arguments).code == 0  # it is a video, whatever it is called
    assert [path.name for path in scratch.iterdir()] == ["victim"]
    assert (scratch / "victim").read_text() == "mine"


def test_equal_outputs_have_no_difference(gex, whole, output):
    done = gex("diff", whole, output, "--json")
    assert (done.code, done.content["changed"], done.content["same_shards"]) == (0, [], 3)


def test_a_difference_names_sample_and_fields(gex, whole, output):
    video = damage.media_of(output, "LVLT", ALPHA.key)
    damage.replace_shard(output, "LVLT", [(replace(ALPHA, text="another text", codec="vp9"), video)])
    done = gex("diff", whole, output, "--json")
    assert done.code == 1
    changed = {row["key"]: (row["status"], row["fields"]) for row in done.content["changed"]}
    assert changed == {ALPHA.key: ("changed", ["text_digest", "codec"]), BETA.key: ("only in A", [])}
    assert done.content["same_shards"] == 2
    assert gex("diff", whole, output, "--granularity", "IT").code == 0
    assert "text_digest, codec" in gex("diff", whole, output).out


def test_two_snapshots_of_one_output_are_compared(gex, output):
    manifest = read_manifest(str(output))
    again = outputs.write_shard(output, "LVLT", [(replace(BETA, key="e" * 32), b"x")], number=1)
    later = outputs.snapshot(1, {"LVLT": outputs.entry("LVLT", "integrate", "SVST", again)}, (), [], {})
    outputs.publish(output, Manifest(manifest.name, (*manifest.snapshots, later)))
    done = gex("diff", f"{output}@0", f"{output}@1", "--json")
    assert (done.code, [(row["key"], row["status"]) for row in done.content["changed"]]) == (
        1,
        [("e" * 32, "only in B")],
    )
    assert len(gex("ls", output, "--snapshot", 0, "--json").content["shards"]) == 3
    assert gex("ls", f"{output}@0", "--json").out == gex("ls", output, "--snapshot", 0, "--json").out
    assert len(gex("ls", f"{output}@1", "--snapshot", 1, "--json").content["shards"]) == 4
    assert len(gex("ls", output, "--json").content["shards"]) == 4


def test_samples_that_are_on_one_side_only_take_little_memory(gex, whole, output):
    num = 20_000
    path = output / "LVLT" / "LVLT-000000.parquet"
    table = pq.read_table(path)
    (row,) = (row for row in table.to_pylist() if row["key"] == ALPHA.key)
    many = [row | {"key": f"{number:032x}"} for number in range(num)]
    pq.write_table(pa.Table.from_pylist([*table.to_pylist(), *many], table.schema), path)
    first, second = (open_target([str(folder)]) for folder in (whole, output))
    tracemalloc.start()
    with looking.compare(first, second) as found:
        assert (found.num_changed, sum(1 for _ in found.changed())) == (num, num)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 800 * num
    done = gex("diff", whole, output, "--json")
    assert [item["key"] for item in done.content["changed"]] == [item["key"] for item in many]
    assert {(item["status"], *item["fields"]) for item in done.content["changed"]} == {("only in B",)}
    assert (done.content["granularities"][1]["in_b"], done.content["granularities"][1]["changed"]) == (num + 2, 0)
    assert f"and {num - 50:,} more; --json has them all" in gex("diff", whole, output).out


@pytest.fixture
def retired(output):
    """Three snapshots, of which the first brought the shards of `output` and is retired."""
    manifest = read_manifest(str(output))
    (first,) = manifest.snapshots
    empty = {name: replace(entry, shards=(), last_shard=0) for name, entry in first.granularities.items()}
    later = []
    for number in (1, 2):
        shards = outputs.write_shard(output, "LVLT", [(replace(BETA, key=f"{number}" * 32), b"x")], number=number)
        later.append(outputs.snapshot(number, {"LVLT": outputs.entry("LVLT", "integrate", "SVST", shards)}, (), [], {}))
    first = replace(first, granularities=empty, retired="2026-05-04T03:02:01+00:00")
    outputs.publish(output, Manifest(manifest.name, (first, *later)))
    return output


@pytest.mark.parametrize(
    "arguments", [["ls", "{}", "--snapshot", "0"], ["ls", "{}@0"], ["diff", "{}@0", "{}"], ["diff", "{}", "{}@0"]]
)
def test_a_data_set_as_it_was_at_a_retired_snapshot_is_refused_and_not_shown_empty(gex, retired, arguments):
    done = gex(*(argument.format(retired) for argument in arguments))
    assert (done.code, done.out) == (1, "")
    assert "was retired on 2026-05-04: its shards are gone; there are still those of 1, 2\n" in done.err
    assert done.err.count("\n") == 1


def test_a_data_set_as_it_was_after_a_retired_snapshot_is_shown_with_a_note(gex, retired):
    note = f"gex: note: {retired} at snapshot 2 is without snapshot 0, retired since\n"
    done = gex("ls", retired, "--snapshot", "2", "--json")
    assert [row["snapshot"] for row in done.content["shards"]] == [1, 2]
    assert (done.code, done.err) == (0, note)
    done = gex("diff", f"{retired}@1", f"{retired}@2", "--json")
    assert (done.code, [row["key"] for row in done.content["changed"]]) == (1, ["2" * 32])
    assert done.err == note.replace("snapshot 2", "snapshot 1") + note
    assert gex("ls", retired).err == ""


def test_every_tool_has_an_example_and_takes_json(gex):
    for tool in ("ls", "show", "find", "stats", "sample", "export", "sheet", "diff", "verify"):
        done = gex(tool, "--help")
        assert done.code == 0
        assert f"gex shards {tool}" in done.out.split("example:")[1]
        assert "--json" in done.out


def test_json_of_a_manifest_without_snapshots_is_empty(gex, output):
    content = json.loads((output / "dataset.json").read_text()) | {"snapshots": []}
    (output / "dataset.json").write_text(json.dumps(content))
    assert gex("ls", output, "--json").content == {"shards": []}
    assert gex("verify", output, "--json").content["wrong"] == 0


@pytest.mark.parametrize("tool", ["ls", "stats", "verify"])
def test_no_tool_loads_torch_or_ray(whole, tool):
    heavy = ("torch", "ray", "vllm", "prefect", "transformers", "matplotlib")
    program = (
        "import sys\nfrom gex_pipeline.cli.main import main\nassert main(['shards', *sys.argv[1:], '--json']) == 0\n"
        f"print(*[name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    arguments = [tool, str(whole), *(["--jobs", "1"] if tool == "verify" else [])]
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, cwd=root, check=True
    )
    assert done.stderr.split() == []
