"""Source tars that are cut, dressed up, replaced or gone: no frame of a wrong clip, and every clip accounted for.

Clips are told apart by the number in their pictures; `expand_to` counts again what came out.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from gex_pipeline import storage
from gex_pipeline.cli.main import main
from gex_pipeline.retry import Retry
from gex_pipeline.shard_format import MemberSpan
from gex_pipeline.source_tars import copy_member, index_tar
from gex_pipeline.stages import prepare
from tests.end_to_end.running import (
    NO_MODELS,
    Output,
    error_of,
    expand_to,
    frames_of,
    run_flow,
    write_metadata,
    write_recipe,
)
from tests.media.making_clips import Make, make_clip, number_of, read_number

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
FRAMES = 10
CLIP_S = FRAMES / 25
BODY = """
[granularity.SVST]
[granularity.LVLT]
operation = "integrate"
from = "SVST"
min_clips = 2
"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[bytes]:
    """Sixteen clips, all of one size; clip n says number n."""
    folder = tmp_path_factory.mktemp("videos")
    found = [make_clip(folder / f"{clip}.mp4", clip, Make(num_frames=FRAMES)).read_bytes() for clip in range(16)]
    size = max(map(len, found)) + 8
    # A box that says nothing makes them as long as each other.
    return [video + (size - len(video)).to_bytes(4, "big") + b"free" + bytes(size - len(video) - 8) for video in found]


def member_of(name: str, content: bytes = b"", **more) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in more.items():
        setattr(member, key, value)
    return member, content


def write_tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return path


def clips_of(keys: dict[str, bytes]) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Members as video2dataset writes them; what the JSON says is another clip's."""
    return [
        member_of(f"{key}.{ending}", content)
        for key, video in keys.items()
        for ending, content in (("mp4", video), ("json", b'{"key": "another", "videoid": "another"}'))
    ]


def rows_of_keys(source: str, keys: list[str]) -> list[dict]:
    return [
        {"YoutubeID": source, "Start_timestamp": second, "End_timestamp": second + CLIP_S, "Caption": f"{key} of it"}
        | {"key": key}
        for second, key in enumerate(keys)
    ]


def recipe_of(folder: Path, rows: list[dict]) -> Path:
    clips = write_metadata(folder / "clips.jsonl", rows)
    source = f'[source]\nclips = "{clips}"\nmedia = {{ kind = "tars", uri = "tars/*.tar" }}\n'
    return write_recipe(folder, source + NO_MODELS + BODY)


def seen(output: Output, source: str) -> list[int]:
    """The clips whose pictures are in a source's samples, in order; every picture of each of them must be there."""
    found = []
    members = output.members("LVLT")
    samples = [row for row in output.samples("LVLT") if row["source_id"] == source]
    for sample in sorted(samples, key=lambda row: row["segments"][0]["start_s"]):
        numbers = [read_number(np.asarray(frame)) for frame in frames_of(members[sample["key"]]["mp4"])]
        clips = [number >> 8 for number in numbers[::FRAMES]]
        assert numbers == [number_of(clip, frame) for clip in clips for frame in range(FRAMES)]
        found += clips
    return found


def lost(output: Output) -> dict[str, tuple[str, str]]:
    """Key, or where that is unknown its clip's row, of what the last run rejected, with reason and detail."""
    keys = {row["clip_id"]: row["key"] for row in output.table("clips")}
    return {
        keys.get(row["id"]) or json.loads(row["row"])["key"]: (row["reason"], row["detail"])
        for row in output.table("rejects")
        if row["state"] == "rejected"
    }


# --- damage that is there when the tars are indexed ------------------------------------------------------------------


def cut(path: Path, num_bytes: int) -> None:
    path.write_bytes(path.read_bytes()[:num_bytes])


def place_of(path: Path, name: str) -> int:
    """Where a member's header begins."""
    with tarfile.open(path) as archive:
        return archive.getmember(name).offset


def damage(folder: Path, videos: list[bytes]) -> dict[str, list[str]]:
    """Tars with every kind of damage, four clips each, numbered from 0; gives their keys by source."""
    keys = {
        name: [f"{name}.{clip}" for clip in range(4)] for name in ("a-cut", "b-torn", "c-two", "d-header", "e-whole")
    }
    tars = {
        name: write_tar(folder / f"tars/{name}.tar", clips_of(dict(zip(keys[name], videos, strict=False))))
        for name in keys
    }
    cut(tars["a-cut"], place_of(tars["a-cut"], "a-cut.2.mp4"))  # at a member's beginning: reads clean
    cut(tars["b-torn"], place_of(tars["b-torn"], "b-torn.2.mp4") + 512 + 700)
    second = write_tar(folder / "second", clips_of(dict(zip(keys["c-two"][2:], videos[2:], strict=False))))
    write_tar(tars["c-two"], clips_of(dict(zip(keys["c-two"][:2], videos, strict=False))))
    tars["c-two"].write_bytes(tars["c-two"].read_bytes() + second.read_bytes())
    content = bytearray(tars["d-header"].read_bytes())
    content[place_of(tars["d-header"], "d-header.2.mp4") + 150] ^= 255  # its checksum
    tars["d-header"].write_bytes(content)
    tars["e-whole"].write_bytes(tars["e-whole"].read_bytes() + b"garbage" * 99)
    (folder / "tars/f-empty.tar").write_bytes(b"")
    (folder / "tars/g-noise.tar").write_bytes(np.random.default_rng(1).bytes(5000))
    return keys


def test_damaged_tars_give_what_they_hold_and_what_they_lack_is_rejected_and_explained(running, videos, tmp_path):
    keys = damage(tmp_path, videos)
    rows = [row for name in keys for row in rows_of_keys(name, keys[name])]
    output = expand_to(recipe_of(tmp_path, rows))
    for name in ("a-cut", "b-torn", "c-two", "d-header"):
        assert seen(output, name) == [0, 1]
    assert seen(output, "e-whole") == [0, 1, 2, 3]
    found = lost(output)
    assert output.ingest["rejected"] == {"media_missing": 7, "media_truncated": 1}
    assert found["b-torn.2"] == (
        "media_truncated",
        f"b-torn.tar breaks off in it: 700 of {len(videos[0])} bytes are there",
    )
    reason, detail = found["a-cut.3"]
    assert reason == "media_missing"
    assert detail.startswith(
        "no tar holds the key a-cut.3; of the tars, a-cut.tar ends without an end-of-archive mark, so it may have been "
        "cut off, b-torn.tar breaks off inside a member, c-two.tar goes on behind its end-of-archive mark at byte "
    )
    assert detail.endswith(", and 4 more")
    # The text and ids are the metadata's: what the JSON beside a clip says is not read.
    assert output.by_source("LVLT")["e-whole"]["text"].startswith("e-whole.0 of it.")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("a-cut", "ends without an end-of-archive mark, so it may have been cut off"),
        ("b-torn", "breaks off inside a member"),
        ("c-two", "goes on behind its end-of-archive mark at byte "),
        ("d-header", "has no whole header at byte "),
        ("e-whole", "goes on behind its end-of-archive mark at byte "),
        ("f-empty", "is empty"),
        ("g-noise", "is no tar"),
    ],
)
def test_what_is_wrong_with_a_tar_is_said(videos, tmp_path, name, problem):
    damage(tmp_path, [b"v" * 2000] * 4)
    (tar,) = storage.list_files(f"{tmp_path}/tars/{name}.tar")
    (said,) = [row["detail"] for row in index_tar(tar) if row.get("problem") == "tar"]
    assert said.startswith(f"{name}.tar {problem}")


def test_names_that_are_tricks_lead_nowhere_and_awkward_ones_are_read(running, videos, tmp_path):
    long = "a-very-long-key-" * 14
    good = {"dots.in.it": 0, long: 1, "with-ü": 2, "second": 3}
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(videos[9])
    link = {"type": tarfile.SYMTYPE, "linkname": str(secret)}
    members = [
        *clips_of({key: videos[clip] for key, clip in good.items()}),
        member_of("hard.mp4", type=tarfile.LNKTYPE, linkname="second.mp4"),
        member_of("lost.mp4", type=tarfile.LNKTYPE, linkname=str(secret)),
        member_of("soft.mp4", **link),
        member_of("folder.mp4", type=tarfile.DIRTYPE),
        member_of("device.mp4", type=tarfile.CHRTYPE),
        member_of("../secret.mp4", videos[8]),
        member_of(str(secret), videos[8]),
        *[member_of("twice.mp4", videos[clip]) for clip in (6, 7)],
        member_of("\udcff.mp4", videos[8]),  # a byte that is no UTF-8
    ]
    write_tar(tmp_path / "tars/a.tar", members, tarfile.GNU_FORMAT)
    write_tar(tmp_path / "tars/b.tar", clips_of({f"pax-{long}": videos[5]}))
    sparse, content = member_of("holes.mp4", b"x" * 1024, type=tarfile.GNUTYPE_SPARSE)
    write_tar(tmp_path / "tars/c.tar", [(sparse, content), *clips_of({"after": videos[4]})])
    bad = ["lost", "soft", "folder", "device", "../secret", str(secret)[:-4], "twice", "holes", "nowhere"]
    rows = rows_of_keys("names", [*good, "hard", f"pax-{long}", "after", *bad])
    output = expand_to(recipe_of(tmp_path, rows))
    assert seen(output, "names") == [0, 1, 2, 3, 3, 5, 4]
    found = lost(output)
    assert {key: found[key][0] for key in bad} == {
        **dict.fromkeys(["lost", "soft", "folder", "device", "holes", "nowhere"], "media_missing"),
        **dict.fromkeys(["../secret", str(secret)[:-4]], "unsafe_media_path"),
        "twice": "media_ambiguous",
    }
    assert found["soft"][1] == "soft is a symbolic link in a.tar"
    assert found["lost"][1] == "lost is a hard link to no video before it in a.tar"
    assert found["holes"][1] == "holes is a sparse file in c.tar"
    assert found["twice"][1] == "2 videos have its key, in a.tar"
    assert found["nowhere"][1] == "no tar holds the key nowhere"


def test_a_compressed_tar_stops_the_run_and_is_named(running, videos, tmp_path):
    whole = write_tar(tmp_path / "tars/a.tar", clips_of({"one": videos[0]}))
    (tmp_path / "tars/b.tar").write_bytes(gzip.compress(whole.read_bytes()))
    error = error_of(run_flow(recipe_of(tmp_path, rows_of_keys("v", ["one"]))))
    assert str(error).endswith("b.tar' is compressed (gzip); clips in tars are read by byte range, so unpack it first")
    assert not (tmp_path / "output/dataset.json").exists()


# --- tars that change ------------------------------------------------------------------------------------------------


def changing(folder: Path, videos: list[bytes]) -> tuple[dict[str, list[str]], list[dict]]:
    names = ("bytes", "order", "grown", "replaced", "removed", "kept")
    keys = {name: [f"{name}.0", f"{name}.1"] for name in names}
    for number, name in enumerate(names):
        write_tar(folder / f"tars/{name}.tar", clips_of(dict(zip(keys[name], videos[number * 2 :], strict=False))))
    return keys, [row for name in names for row in rows_of_keys(name, keys[name])]


def change(folder: Path, videos: list[bytes]) -> None:
    """What can happen to a tar between its indexing and its reading; names and sizes of members stay."""
    tar = {path.stem: path for path in (folder / "tars").iterdir()}
    content = tar["bytes"].read_bytes()  # other pictures under the same header
    tar["bytes"].write_bytes(content.replace(videos[0], videos[14]).replace(videos[1], videos[15]))
    stat = tar["order"].stat()
    write_tar(tar["order"], clips_of({"order.1": videos[3], "order.0": videos[2]}))
    os.utime(tar["order"], ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as rsync and unpacking set it
    assert tar["order"].stat().st_size == stat.st_size
    with tarfile.open(tar["grown"], "a") as archive:
        for member, content in clips_of({"late": videos[13]}):
            archive.addfile(member, io.BytesIO(content))
    other = write_tar(
        folder / "other", clips_of({"replaced.0": videos[12], "replaced.1": videos[13], "more": videos[13]})
    )
    other.replace(tar["replaced"])
    tar["removed"].unlink()


@pytest.fixture
def changed_between(running, videos, tmp_path, monkeypatch):
    """A run whose tars change when they are indexed and not yet read; the folder, and what came out."""
    _, rows = changing(tmp_path, videos)
    ingest_clips = prepare.ingest_clips

    def then_change(run):
        account = ingest_clips(run)
        change(tmp_path, videos)
        return account

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "ingest_clips", then_change)
        return tmp_path, expand_to(recipe_of(tmp_path, rows))


def test_a_tar_that_changes_between_indexing_and_reading_gives_no_frame_of_another_clip(changed_between, videos):
    folder, output = changed_between
    assert seen(output, "kept") == [10, 11]
    assert {row["source_id"] for row in output.samples("LVLT")} == {"kept"}
    found = lost(output)
    assert {key.split(".")[0]: reason for key, (reason, _) in found.items()} == {
        **dict.fromkeys(["bytes", "order", "grown", "replaced"], "media_changed"),
        "removed": "media_missing",
    }
    assert output.account("LVLT")["rejected"] == {"media_changed": 8, "media_missing": 2}
    assert found["bytes.0"][1].endswith("bytes.tar' has changed since it was indexed: written since, at the same size")
    assert "has another member before byte" in found["order.0"][1]
    assert "bytes then, " in found["grown.0"][1]
    # Tried again, the clips are found where they are now, if their tar's size or time says that it is another.
    again = expand_to(folder / "recipe.toml", retry=Retry(("media_changed",)))
    assert seen(again, "order") == []
    assert again.account("LVLT")["rejected"] == {"media_changed": 2}
    assert seen(again, "grown") == [4, 5]
    assert seen(again, "bytes") == [14, 15]  # the tar says that these are its clips
    assert seen(again, "replaced") == [12, 13]
    assert seen(again, "kept") == [10, 11]


def test_a_later_run_finds_known_clips_where_their_tars_have_them_now(running, videos, tmp_path, capsys):
    """First, only x has enough clips. Then y's tar is written anew, z's renamed, w's is gone; each gets more clips."""
    tars = tmp_path / "tars"
    x, y, z, w = (rows_of_keys(name, [f"{name}{clip}" for clip in range(3)]) for name in "xyzw")
    write_tar(tars / "x.tar", clips_of({"x0": videos[0], "x1": videos[1]}))
    for clip, name in enumerate("yzw", 2):
        write_tar(tars / f"{name}.tar", clips_of({f"{name}0": videos[clip]}))
    recipe = recipe_of(tmp_path, [*x[:2], y[0], z[0], w[0]])
    first = expand_to(recipe)
    assert {row["source_id"] for row in first.samples("LVLT")} == {"x"}
    write_tar(tars / "y.tar", clips_of({"y2": videos[6], "y1": videos[5], "y0": videos[2]}))
    (tars / "z.tar").rename(tars / "z-renamed.tar")
    write_tar(tars / "z-more.tar", clips_of({"z1": videos[7]}))
    (tars / "w.tar").unlink()
    write_tar(tars / "w-more.tar", clips_of({"w1": videos[8], "w2": videos[9]}))
    with tarfile.open(tars / "x.tar", "a") as archive:
        for member, content in clips_of({"x2": videos[10]}):
            archive.addfile(member, io.BytesIO(content))
    recipe_of(tmp_path, [*x, *y, *z[:2], *w])
    second = expand_to(recipe)
    assert seen(second, "x") == [0, 1]
    assert seen(second, "y") == [2, 5, 6]
    assert seen(second, "z") == [3, 7]
    assert seen(second, "w") == [8, 9]
    assert lost(second) == {"w0": ("media_missing", f"'{tars}/w.tar' does not exist")}
    assert second.ingest["rejected"] == {}
    moved = {row["clip_id"]: Path(row["media_uri"]).name for row in second.table("media-moved")}
    keys = {row["clip_id"]: row["key"] for row in second.table("clips")}
    assert {keys[clip]: tar for clip, tar in moved.items()} == {
        **{f"x{clip}": "x.tar" for clip in range(2)},
        "y0": "y.tar",
        "z0": "z-renamed.tar",
    }
    assert main(["shards", "verify", str(second.folder), "--deep", "--jobs", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == []  # every segment was compared with its source clip


def test_a_stamp_holds_on_an_object_store_and_sees_a_change(world, tmp_path):
    bucket = world.make_bucket("stamps")
    path = write_tar(tmp_path / "a.tar", clips_of({"one": b"v" * 3000}))

    storage.publish_file(path, f"{bucket}/a.tar")
    (tar,) = storage.list_files(f"{bucket}/*.tar")
    (row,) = index_tar(tar)
    place = (row["uri"], MemberSpan(row["offset_bytes"], row["size_bytes"]), tmp_path / "one.mp4", row["stamp"])
    assert copy_member(*place) is None
    assert (tmp_path / "one.mp4").read_bytes() == b"v" * 3000
    with tarfile.open(path, "a") as archive:
        archive.addfile(member_of("two.mp4", b"w" * 20_000)[0], io.BytesIO(b"w" * 20_000))
    storage.publish_file(path, f"{bucket}/a.tar")
    assert "bytes then, " in copy_member(*place)
    assert copy_member(*place, member_only=True) is None
    shutil.copy(write_tar(tmp_path / "b.tar", clips_of({"two": b"v" * 3000})), path)
    storage.publish_file(path, f"{bucket}/a.tar")
    assert "has another member" in copy_member(*place, member_only=True)
