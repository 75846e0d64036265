from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import webdataset

from gex_pipeline.errors import GexError
from gex_pipeline.shards.reader import DamagedTarError, iter_members, iter_samples, read_member, split_name
from gex_pipeline.shards.target import open_target, split_snapshot
from tests.shards import damage

NAMES = ("a.mp4", "a.seg.PNG", "deep/er/b.txt", "dir.with.dots/c.json", "noextension", ".hidden", "d.")


def test_names_are_split_as_webdataset_splits_them():
    for name in NAMES:
        key, extension = webdataset.tariterators.base_plus_ext(name)
        assert split_name(name) == (None if key is None else (key, extension.lower()))


def test_samples_and_their_bytes_are_those_that_webdataset_reads(whole):
    path = str(damage.tar(whole, "LVLT"))
    expected = list(webdataset.WebDataset([path], shardshuffle=False, empty_check=False))
    found = list(iter_samples(path))
    assert [sample.key for sample in found] == [sample["__key__"] for sample in expected]
    for sample, content in zip(found, expected, strict=True):
        for member in sample.members:
            assert read_member(path, member) == content[member.extension]


@pytest.mark.parametrize("where", ["header", "data", "start"])
def test_a_tar_that_breaks_off_gives_what_is_before_and_raises(output, where):
    path = damage.tar(output, "LVLT")
    offset = damage.header_offset(path, 3)
    path.write_bytes(path.read_bytes()[: {"header": offset + 100, "data": offset + 600, "start": offset}[where]])
    found = []
    with pytest.raises(DamagedTarError):
        for member in iter_members(str(path)):
            found.append(member.name)
    assert len(found) >= 3


def test_a_damaged_header_is_not_taken_for_the_end(output):
    path = damage.tar(output, "LVLT")
    offset = damage.header_offset(path, 4)
    damage.flip(path, offset + 3)
    with pytest.raises(DamagedTarError, match=f"has a damaged header at byte {offset}"):
        list(iter_members(str(path)))


@pytest.mark.parametrize("content", [b"", b"no tar at all " * 100])
def test_what_is_no_tar_raises(tmp_path, content):
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(DamagedTarError, match="not a whole tar"):
        list(iter_members(str(tmp_path / "x.tar")))


def test_links_and_folders_are_no_members(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        folder, link = tarfile.TarInfo("a.dir"), tarfile.TarInfo("b.mp4")
        folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(folder)
        tar.addfile(link)
    assert list(iter_members(str(tmp_path / "x.tar"))) == []


def test_a_range_names_every_tar_of_it(tmp_path):
    for number in range(8, 12):
        damage.write_members(tmp_path / f"a-{number:03d}.tar", [("k.txt", b"x")])
    target = open_target([str(tmp_path / "a-{009..011}.tar")])
    assert [shard.name for shard in target.shards] == ["a-009.tar", "a-010.tar", "a-011.tar"]
    assert len(open_target([str(tmp_path)]).shards) == len(open_target([f"{tmp_path}/*.tar"]).shards) == 4
    with pytest.raises(GexError, match=r"a-012\.tar"):
        open_target([str(tmp_path / "a-{009..012}.tar")])
    with pytest.raises(GexError, match="not a range"):
        open_target([str(tmp_path / "a-{9..3}.tar")])


def test_a_snapshot_stands_behind_the_output(whole, tmp_path):
    assert split_snapshot(f"{whole}@3") == (str(whole), 3)
    named = damage.copy_of(whole, tmp_path).rename(tmp_path / "out@3")
    assert split_snapshot(str(named)) == (str(named), None)


def test_the_reader_loads_nothing_heavy():
    names = ("duckdb", "pyarrow", "torch", "ray", "pydantic", "av")
    module = "gex_pipeline.shards.reader, gex_pipeline.shards.target"
    program = f"import sys, {module}\nprint(*[name for name in {names!r} if name in sys.modules])"
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=root, check=True
    )
    assert done.stdout.split() == []
