"""Indexing and reading tars in an object store: what is asked for, how often, and that it is the same as on a disk."""

from __future__ import annotations

import io
import os
import random
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gex_pipeline import object_store, storage
from gex_pipeline.errors import FileMissingError, FileTooShortError, RejectedError
from gex_pipeline.layout import Layout
from gex_pipeline.operations.base import MediaPlace, Member, Workspace
from gex_pipeline.shard_format import MemberSpan
from gex_pipeline.shards.reader import DamagedTarError, iter_members
from gex_pipeline.source_tars import copy_member, index_tar
from tests.making_runs import recipe_of

VIDEO = os.urandom(300_000)


def write_tar(path: Path, members: list[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT, mtime: float = 0) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), mtime
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def stored(world, tmp_path):
    """Puts a tar into a bucket; gives it as a listing does."""
    bucket = world.make_bucket("source-tars")

    def put(*arguments: Any, **more: Any) -> storage.FileInfo:
        path = write_tar(tmp_path / "a.tar", *arguments, **more)
        storage.publish_file(path, f"{bucket}/a.tar")
        (tar,) = storage.list_files(f"{bucket}/*.tar")
        world.requests.clear()
        world.sent.clear()
        return tar

    return put


def asked(world) -> tuple[Counter[str], int]:
    """Requests by method, and bytes that came."""
    return Counter(method for method, _ in world.requests), sum(world.sent.values())


def pax(**records: str) -> bytes:
    header = tarfile.TarInfo("b.mp4")
    header.pax_headers = {name.replace("__", "."): value for name, value in records.items()}
    return header.tobuf(tarfile.PAX_FORMAT)


def of_kind(kind: bytes, size: int, content: bytes = b"") -> bytes:
    header = tarfile.TarInfo("b.mp4")
    header.type, header.size = kind, size
    return header.tobuf(tarfile.GNU_FORMAT) + content


HOSTILE = {
    "names without end": of_kind(tarfile.GNUTYPE_LONGNAME, 5, b"long\0".ljust(512, b"\0")) * 1200 + pax(),
    "headers without end": pax(comment="a")[:1024] * 1200 + pax(),
    "a sparse size that is no number": pax(GNU__sparse__size="zz"),
    "a sparse map that is no number": pax(GNU__sparse__major="0", GNU__sparse__map="zz,1"),
    "a sparse map in the file that is no number": pax(GNU__sparse__major="1", GNU__sparse__minor="0") + b"zz\n" * 512,
    "a size beyond all disks": pax(size="9" * 30),
    "a header of a negative size": of_kind(tarfile.XHDTYPE, -1024),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_headers_made_to_break_a_reader_cost_what_follows_them(tmp_path, what):
    """They ended a whole run, or a tool that looks at damage, with a traceback."""
    path = write_tar(tmp_path / "a.tar", [("good.mp4", b"x" * 700)], tarfile.USTAR_FORMAT)
    path.write_bytes(path.read_bytes()[: 512 + 1024] + HOSTILE[what] + bytes(1024))
    (tar,) = storage.list_files(str(path))
    good, *lost, problem = index_tar(tar)
    assert (good["key"], good["offset_bytes"], good["size_bytes"]) == ("good", 512, 700)
    assert [row["problem"] for row in lost] == (["media_truncated"] if "beyond" in what else [])
    assert problem["problem"] == "tar"
    behind = "has no whole header at byte 1536, so what lies behind is not read"
    assert problem["detail"] == f"a.tar {'breaks off inside a member' if lost else behind}"
    found = []
    with pytest.raises(DamagedTarError, match=r"is not a whole tar|has a damaged header at byte 1536"):
        for member in iter_members(str(path)):
            found.append(member.name)
    assert found == ["good.mp4"]
    path.write_bytes(HOSTILE[what] + bytes(1024))  # the first header is read while the tar is opened
    (tar,) = storage.list_files(str(path))
    *_, problem = index_tar(tar)
    assert problem["detail"] == ("a.tar breaks off inside a member" if lost else "a.tar is no tar")


def test_a_member_of_a_negative_size_is_none(tmp_path):
    """It was read as everything that follows, and stood in a table as it was."""
    path = tmp_path / "a.tar"
    path.write_bytes(of_kind(tarfile.REGTYPE, -1024) + bytes(4096))
    with pytest.raises(DamagedTarError, match="has a damaged header at byte 0: -1024 bytes"):
        next(iter_members(str(path)))


def test_of_large_videos_only_headers_are_read(world, stored):
    """256 KiB came for every header of 512 bytes, a quarter of all bytes of a collection of clips of 1 MB."""
    rows = list(index_tar(stored([(f"{clip}.mp4", VIDEO) for clip in range(8)])))
    assert [row["key"] for row in rows] == [str(clip) for clip in range(8)]
    requests, num_bytes = asked(world)
    assert requests["HEAD"] == 1
    assert requests["GET"] <= 8 + 2  # the last two: the end-of-archive mark, and what is behind it
    assert num_bytes < 90_000


def test_text_and_json_of_a_clip_come_with_the_next_header(world, stored):
    """As webdataset writes them: times in parts of a second, so that each member has three header blocks."""
    beside = [("json", b"j" * 1500), ("txt", b"t" * 100), ("mp4", VIDEO)]
    members = [(f"{clip}.{ending}", content) for clip in range(8) for ending, content in beside]
    rows = list(index_tar(stored(members, mtime=1.5)))
    assert len(rows) == 8
    requests, num_bytes = asked(world)
    assert requests["GET"] <= 8 + 2
    assert num_bytes < 90_000


def test_small_members_do_not_cost_a_request_each(world, stored):
    tar = stored([(f"{clip}.mp4", VIDEO[:5000]) for clip in range(400)])
    assert len(list(index_tar(tar))) == 400
    requests, num_bytes = asked(world)
    assert requests["GET"] < 20
    assert num_bytes <= tar.num_bytes + 20_000


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_videos_of_all_sizes_are_found_where_tarfile_finds_them(stored, tmp_path, form):
    drawn = random.Random(form)
    sizes = [0, 511, 512, 8191, 8192, *(int(300_000 ** drawn.random()) for _ in range(25))]
    names = [f"{number:02d}-{'n' * drawn.choice([1, 80])}" for number in range(len(sizes))]
    tar = stored([(f"{name}.mp4", VIDEO[:size]) for name, size in zip(names, sizes, strict=True)], form=form, mtime=1.5)
    with tarfile.open(tmp_path / "a.tar") as archive:
        expected = [(member.name[:-4], member.offset_data, member.size) for member in archive]
    (local,) = storage.list_files(f"{tmp_path}/a.tar")
    for found in (tar, local):
        rows = list(index_tar(found))
        assert [(row["key"], row["offset_bytes"], row["size_bytes"]) for row in rows] == expected
        for row in rows:
            header = (tmp_path / "a.tar").read_bytes()[row["offset_bytes"] - 512 : row["offset_bytes"]]
            assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == row["size_bytes"]
            copied = tmp_path / "clip"
            assert copy_member(row["uri"], span_of(row), copied, row["stamp"]) is None
            assert copied.read_bytes() == VIDEO[: row["size_bytes"]]


def test_a_tar_that_breaks_off_anywhere_is_indexed_alike_in_a_store_and_on_a_disk(world, stored, tmp_path):
    path = tmp_path / "a.tar"
    stored([(f"{clip}.mp4", VIDEO[: 3000 * clip]) for clip in range(5)])
    whole = path.read_bytes()
    uri = "s3://source-tars/a.tar"
    for cut in [0, 100, 512, 700, 3584, 4096, 5000, len(whole) - 10240, len(whole) - 600, len(whole)]:
        path.write_bytes(whole[:cut])
        storage.publish_file(path, uri)
        found = [[without_tar(row) for row in index_tar(storage.info(place))] for place in (uri, str(path))]
        assert found[0] == found[1]
        with_videos = [row for row in found[0] if "problem" not in row]
        assert all(row["offset_bytes"] + row["size_bytes"] <= cut for row in with_videos)


def without_tar(row: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in row.items() if name not in ("uri", "tar_modified_s", "stamp")}
    return kept | {"digest": row.get("stamp", "").rpartition(" ")[2]}


def span_of(row: dict[str, Any]) -> MemberSpan:
    return MemberSpan(row["offset_bytes"], row["size_bytes"])


def workspace(folder: Path) -> Workspace:
    (folder / "work").mkdir(exist_ok=True)
    return Workspace(recipe_of(folder), "LVLT", Layout(str(folder / "output")), folder / "work")


def member_of(row: dict[str, Any]) -> Member:
    place = MediaPlace(row["uri"], row["offset_bytes"], row["size_bytes"], stamp=row["stamp"])
    return Member("clip", "source", 0, 1, "a text", place)


def test_a_clip_is_one_request_with_its_header_and_its_tar_is_asked_once(world, stored, tmp_path):
    _, row = index_tar(stored([("one.mp4", VIDEO[::-1]), ("two.mp4", VIDEO)]))
    world.requests.clear()
    world.sent.clear()
    work = workspace(tmp_path)
    with work.fetch(member_of(row), 0) as path:
        assert path.read_bytes() == VIDEO
    assert asked(world) == ({"HEAD": 1, "GET": 1}, 512 + len(VIDEO))
    assert work.fetched == [len(VIDEO)]


@pytest.mark.parametrize(("piece_bytes", "is_seen"), [(100_000, True), (len(VIDEO) + 512, False)])
def test_what_is_written_while_a_clip_comes_in_pieces_is_seen(stored, tmp_path, monkeypatch, piece_bytes, is_seen):
    """One request has all its bytes of one object, be it replaced meanwhile; of several each may have another."""
    (row,) = index_tar(stored([("one.mp4", VIDEO)]))
    monkeypatch.setattr(object_store, "PIECE_BYTES", piece_bytes)
    write_pieces = storage.write_pieces

    def then_replace(content: Any, target: Path) -> None:
        write_pieces(content, target)
        stored([("one.mp4", VIDEO[::-1]), ("more.mp4", VIDEO)])

    monkeypatch.setattr(storage, "write_pieces", then_replace)
    found = copy_member(row["uri"], span_of(row), tmp_path / "clip", row["stamp"])
    assert ("has changed since it was indexed" in (found or "")) == is_seen
    assert (tmp_path / "clip").read_bytes() == VIDEO


def test_a_clip_of_a_tar_that_is_another_or_shorter_or_gone_is_rejected(stored, tmp_path):
    tar = stored([("one.mp4", VIDEO)])
    (row,) = index_tar(tar)
    work = workspace(tmp_path)
    for members, said in [
        ([("two.mp4", VIDEO)], "has another member before byte 512 than when it was indexed"),
        ([("one.mp4", VIDEO), ("two.mp4", VIDEO)], f"indexed: {tar.num_bytes} bytes then, "),
    ]:
        stored(members)
        with pytest.raises(RejectedError, match=said) as caught, work.fetch(member_of(row), 0):
            pass
        assert caught.value.reason == "media_changed"
    storage.publish_bytes((tmp_path / "a.tar").read_bytes()[:5000], row["uri"])
    said = rf"ends {512 + len(VIDEO) - 5000} bytes before the range 512\+{len(VIDEO)} does"
    with pytest.raises(RejectedError, match=said) as caught, work.fetch(member_of(row), 0):
        pass
    assert caught.value.reason == "media_changed"
    with pytest.raises(FileTooShortError):
        copy_member(row["uri"], span_of(row), tmp_path / "clip", row["stamp"])
    storage.remove(row["uri"])
    with pytest.raises(RejectedError, match="does not exist") as caught, work.fetch(member_of(row), 0):
        pass
    assert caught.value.reason == "media_missing"
    with pytest.raises(FileMissingError):
        copy_member(row["uri"], span_of(row), tmp_path / "clip", row["stamp"])
    assert not any((tmp_path / "work").iterdir())
