"""The index of tars: what a run keeps of it in its output, who reads it again, and what it takes of memory."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gex_pipeline import ingest, media_index, storage
from gex_pipeline.errors import GexError
from gex_pipeline.recipe import Recipe
from gex_pipeline.run_state import open_run
from gex_pipeline.tables import Database
from tests.making_runs import clip_row, recipe_of, run_here, write_jsonl
from tests.test_source_tars import write_tar


@pytest.fixture
def source(tmp_path, monkeypatch) -> Recipe:
    """A recipe over three tars of two videos each; every tar has a file of its own in the cache."""
    monkeypatch.setattr(media_index, "_TARS_A_FILE", 1)
    (tmp_path / "tars").mkdir()
    for name in "abc":
        put(tmp_path, name)
    write_jsonl(
        tmp_path / "clips.jsonl", [clip_row(f"v{key}", key=key) for key in ("a0", "a1", "b0", "b1", "c0", "c1")]
    )
    return recipe_of(tmp_path, {"media": {"kind": "tars", "uri": "tars/*.tar"}}, {"SVST": {}})


def put(folder: Path, name: str, content: bytes = b"video") -> None:
    write_tar(folder / f"tars/{name}.tar", [(f"{name}{clip}.mp4", content) for clip in range(2)])


def tars_read(recipe: Recipe, monkeypatch, *, keep_index: bool = True) -> list[str]:
    """Ingest; the tars that were opened for it. Every clip has to be found in the tar with its letter."""
    seen = []
    open_read = storage.open_read

    def noted(uri: str, **more):
        seen.append(uri)
        return open_read(uri, **more)

    with monkeypatch.context() as patch, Database(threads=1) as database:
        patch.setattr(storage, "open_read", noted)
        ingest.ingest(database, open_run(recipe), keep_index=keep_index)
        clips = database.query("SELECT key, media_uri, media_stamp FROM clips_new")
    assert all(Path(clip["media_uri"]).stem == clip["key"][0] for clip in clips)
    assert all(clip["media_stamp"] for clip in clips)
    return sorted(Path(uri).stem for uri in seen if uri.endswith(".tar"))


def kept(recipe: Recipe) -> int:
    return len(storage.list_files(f"{recipe.output_uri}/cache/media-index/*"))


def test_after_a_run_that_broke_off_only_tars_that_are_new_or_changed_are_read(source, tmp_path, monkeypatch):
    """What a failure at the last tar had cost: the reading of all others, by every run anew."""
    whole = (tmp_path / "tars/c.tar").read_bytes()
    (tmp_path / "tars/c.tar").write_bytes(gzip.compress(whole))
    with pytest.raises(GexError, match=r"c.tar' is compressed"):
        tars_read(source, monkeypatch)
    assert kept(source) == 2
    (tmp_path / "tars/c.tar").write_bytes(whole)  # other inputs: what was begun is not gone on with
    assert tars_read(source, monkeypatch) == ["c"]
    assert tars_read(source, monkeypatch) == []
    put(tmp_path, "b", b"another video")
    assert tars_read(source, monkeypatch) == ["b"]
    assert kept(source) == 3  # without that of the former b


def test_a_plan_reads_what_a_run_kept_and_writes_nothing(source, monkeypatch):
    assert tars_read(source, monkeypatch, keep_index=False) == ["a", "b", "c"]
    assert not storage.local_path(source.output_uri).exists()
    tars_read(source, monkeypatch)
    before = storage.list_files(f"{source.output_uri}/**")
    assert tars_read(source, monkeypatch, keep_index=False) == []
    assert storage.list_files(f"{source.output_uri}/**") == before


def test_tars_without_videos_are_known_too(source, tmp_path, monkeypatch):
    write_tar(tmp_path / "tars/d.tar", [("d.txt", b"no video")])
    assert tars_read(source, monkeypatch) == ["a", "b", "c", "d"]
    assert tars_read(source, monkeypatch) == []


def test_what_is_published_is_kept_no_longer_and_what_is_damaged_is_read_again(source, tmp_path, monkeypatch):
    tars_read(source, monkeypatch)
    for number, file in enumerate(storage.list_files(f"{source.output_uri}/cache/media-index/*")):
        path = storage.local_path(file.uri)
        path.write_bytes([b"", path.read_bytes()[:-20], path.read_bytes()][number])
    assert len(tars_read(source, monkeypatch)) == 2
    assert kept(source) == 3
    (tmp_path / "output/cache/media-index/copied.parquet").write_bytes(path.read_bytes())  # the tar of `path` twice
    run_here(source)
    index = pq.read_table(tmp_path / "output/tables/media-index-000000.parquet")
    assert index["key"].to_pylist() == ["a0", "a1", "b0", "b1", "c0", "c1"]
    put(tmp_path, "d")
    write_jsonl(tmp_path / "clips.jsonl", [clip_row("vd", key="d0")])
    assert tars_read(source, monkeypatch) == ["d"]
    assert kept(source) == 1


def test_memory_does_not_grow_with_the_number_of_videos(source, tmp_path):
    """All rows were in memory at once, about 1 kB a video; what still grows is the list of tars."""
    write_tar(tmp_path / "tars/a.tar", [(f"a{clip}.mp4", b"") for clip in range(100)])
    peaks = []
    for number in (20, 80):  # 16 are read at a time
        for link in range(number):
            (tmp_path / f"tars/l{link}.tar").unlink(missing_ok=True)
            (tmp_path / f"tars/l{link}.tar").symlink_to("a.tar")
        with Database(threads=1) as database:
            tracemalloc.start()
            media_index.media_index(database, open_run(source))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert database.count("indexed") == (number + 1) * 100 + 4
    assert (peaks[1] - peaks[0]) / (60 * 100) < 100  # bytes a video
