"""The tools on a WebDataset that somebody else wrote, and on an object store."""

from __future__ import annotations

import json

import pytest
import webdataset

from tests.end_to_end.object_store import ObjectStore
from tests.report import outputs
from tests.shards import damage


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Two tars as video2dataset writes them: caption and measures in the JSON; one sample has a picture."""
    folder = tmp_path_factory.mktemp("foreign")
    video = outputs.write_video(folder / "v.mp4", [(2.0, outputs.RED), (1.0, outputs.BLUE)]).read_bytes()
    picture = outputs.image_samples(folder)[0][1]
    for number in range(2):
        with webdataset.TarWriter(str(folder / f"{number:05d}.tar")) as tar:
            for index in range(3):
                facts = {"url": f"https://example.org/{index}", "duration": 3.0, "caption": f"caption {index}"}
                tar.write({"__key__": f"{number:05d}{index:04d}", "mp4": video, "json": facts})
            tar.write({"__key__": f"{number:05d}pic", "jpg": picture, "txt": "a picture of red"})
    (folder / "v.mp4").unlink()
    return folder


def test_a_foreign_data_set_is_listed(gex, foreign):
    rows = gex("ls", foreign, "--json").content["shards"]
    assert [(row["shard"], row["samples"], row["duration_s"], row["state"]) for row in rows] == [
        ("00000.tar", 4, 9.0, "complete"),
        ("00001.tar", 4, 9.0, "complete"),
    ]


def test_a_foreign_sample_is_shown_found_counted_and_written_out(gex, foreign, tmp_path):
    tars = f"{foreign}/{{00000..00001}}.tar"
    shown = gex("show", "000010001", tars, "--json").content
    assert (shown["text"], shown["source_id"], shown["lineage"]) == ("caption 1", "https://example.org/1", [])
    assert gex("show", "000010001", tars).code == 0
    found = gex("find", "num_words = 4 AND media_extension = 'jpg'", tars, "--json").content
    assert [row["key"] for row in found["samples"]] == ["00000pic", "00001pic"]
    counted = gex("stats", tars, "--json").content["statistics"]
    assert {(row["quantity"], row["num"]) for row in counted} == {("duration_s", 6), ("num_words", 8)}
    assert gex("stats", tars).code == 0
    files = gex("export", "00000pic", tars, "--to", tmp_path, "--json").content["files"]
    assert [file.removeprefix(f"{tmp_path}/") for file in files] == ["00000pic.jpg", "00000pic.txt"]
    assert gex("sample", 2, tars, "--to", tmp_path / "s", "--json").code == 0
    sheet = gex("sheet", tars, "--out", tmp_path / "sheet.png", "--json")
    assert (sheet.code, len(sheet.content["keys"])) == (0, 6)
    assert gex("diff", foreign, foreign, "--json").content["changed"] == []


def test_a_foreign_data_set_is_verified(gex, verify, foreign, tmp_path):
    assert verify(foreign).content == {"output": None, "shards": 2, "wrong": 0, "notes": 0, "findings": []}
    path = tmp_path / "00000.tar"
    path.write_bytes((foreign / "00000.tar").read_bytes())
    offset, _ = damage.member_offset(path, "000000001.mp4")
    content = dict(damage.read_members(path))["000000001.mp4"]
    damage.flip(path, offset + content.index(b"mdat") + 6)
    done = verify(path)
    assert (done.code, done.checks()) == (1, {"video": {"00000.tar"}})
    assert done.checks("000000001") == done.checks()


def test_a_key_in_two_foreign_tars_is_a_duplicate(verify, foreign, tmp_path):
    copy = tmp_path / "copy.tar"
    copy.write_bytes((foreign / "00000.tar").read_bytes())
    done = verify(foreign / "00000.tar", copy)
    assert (done.code, done.checks()) == (1, {"duplicate": {"00000.tar", "copy.tar"}})


def test_hostile_names_are_not_written_out_of_the_folder(gex, tmp_path):
    damage.write_members(tmp_path / "x.tar", [("../evil.txt", b"x"), ("/abs.txt", b"y"), ("ok/a.txt", b"z")])
    for key in ("../evil", "/abs"):
        done = gex("export", key, tmp_path / "x.tar", "--to", tmp_path / "to")
        assert (done.code, "leads out of" in done.err) == (1, True)
    assert gex("export", "ok/a", tmp_path / "x.tar", "--to", tmp_path / "to").code == 0
    assert (tmp_path / "to" / "ok" / "a.txt").read_bytes() == b"z"
    assert not (tmp_path / "evil.txt").exists()


def test_odd_members_stop_no_tool(gex, verify, tmp_path):
    members = [
        ("a.json", b"[1, 2]"), ("a.mp4", b"no video"), ("b.json", b"{"), ("b.txt", b"\xff\xfe"),
        ("c.json", b'{"duration": "long", "segments": [1], "parents": 3, "scores": {"x": "y"}}'), ("c.jpg", b""),
        ("d.unknown", b"?"),
    ]  # fmt: skip
    damage.write_members(tmp_path / "x.tar", members)
    for tool in (["ls"], ["show", "c"], ["find", "true"], ["stats"], ["sample", 4, "--to", tmp_path / "to"]):
        assert gex(*tool, tmp_path / "x.tar", "--json").code == 0
    assert gex("sheet", tmp_path / "x.tar", "--out", tmp_path / "s.png").code == 1
    done = verify(tmp_path / "x.tar")
    assert done.code == 1
    found = {(finding["key"], finding["check"]) for finding in done.content["findings"]}
    assert found == {("a", "json"), ("a", "video"), ("b", "json"), ("b", "text"), ("c", "picture")}


SEGMENT = {"clip_id": "c\ud83d", "source_id": None, "start_s": 0, "end_s": 3, "offset_s": 0, "duration_s": 3, "text": 1}


@pytest.fixture
def tar_of(foreign, tmp_path):
    """Write a tar of one sample with a video of 3 s and these facts."""

    def write(facts, stem="a"):
        video = dict(damage.read_members(foreign / "00000.tar"))["000000001.mp4"]
        members = [(f"{stem}.mp4", video), (f"{stem}.json", json.dumps(facts).encode())]
        damage.write_members(tmp_path / "x.tar", members)
        return tmp_path / "x.tar"

    return write


def test_a_name_that_is_not_utf_8_stops_no_tool(gex, verify, tar_of):
    tar = tar_of({}, b"caf\xe9".decode(errors="surrogateescape"))
    assert gex("ls", tar).code == 0
    (file, _) = gex("export", r"caf\udce9", tar, "--to", tar.parent, "--json").content["files"]
    assert file.endswith(r"caf\udce9.mp4")
    assert verify(tar).content["findings"] == []


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({"caption": "cut \ud83d", "url": "\ud83d"}, {"text": r"cut \ud83d", "source_id": r"\ud83d"}),
        ({"codec": "\ud83d", "parents": ["\ud83d"]}, {"codec": r"\ud83d", "parents": [r"\ud83d"]}),
        ({"width": float("nan"), "duration": float("inf"), "fps": 10**400}, {"width_px": None, "fps": None}),
        ({"width": 1e300, "source_text_digest": [1]}, {"width_px": None, "source_text_digest": "[1]"}),
        ({"scores": {"\ud83d": 1, "b": float("nan"), "c": 10**400}}, {"scores": {r"\ud83d": 1.0}}),
        ({"segments": [SEGMENT, {**SEGMENT, "end_s": float("nan")}]}, {"duration_s": None}),
        ({"duration_s": 3.0, "segments": [[0, 3], [3, 5]]}, {"duration_s": 3.0, "segments": []}),
        ({"duration_s": 3.0, "segments": {"0": 3}}, {"segments": []}),
    ],
)
def test_texts_and_numbers_of_others_stop_no_tool(gex, verify, tar_of, facts, found):
    tar = tar_of(facts)
    for tool in (["ls"], ["stats"], ["find", "true"], ["sample", 1, "--to", tar.parent / "to"]):
        assert gex(*tool, tar).code == 0
    shown = gex("show", "a", tar, "--json").content
    assert {name: shown[name] for name in found} == found
    done = verify(tar)
    assert (done.code, done.content["findings"]) == (0, [])


def test_the_seconds_that_others_call_duration_are_verified(verify, tar_of):
    (finding,) = verify(tar_of({"duration": 999.0})).content["findings"]
    assert (finding["check"], finding["expected"]) == ("duration", "999.000 s within a frame")


def test_an_output_in_an_object_store_is_listed_shown_and_verified(gex, verify, whole, monkeypatch):
    store = ObjectStore()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        bucket = store.make_bucket("shards")
        from pyarrow import fs

        remote, base = fs.FileSystem.from_uri(bucket)
        fs.copy_files(str(whole), f"{base}/out", fs.LocalFileSystem(), remote)
        done = verify(f"{bucket}/out")
        assert (done.code, done.content["shards"], done.content["findings"]) == (0, 3, [])
        assert gex("ls", f"{bucket}/out", "--json").content["shards"][0]["state"] == "complete"
        tar = f"{bucket}/out/LVLT/*.tar"
        assert gex("ls", tar, "--json").content["shards"][0]["samples"] == 2
        assert gex("show", damage.ALPHA.key, f"{bucket}/out", "--json").content["text"] == damage.ALPHA.text
    finally:
        store.close()
