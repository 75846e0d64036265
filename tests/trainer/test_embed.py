"""Vectors in a file are those that the model gives; what cannot be read costs itself."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from gex_pipeline.errors import GexError
from gex_pipeline.shards.manifest import read_manifest
from tests.report.outputs import publish
from tests.trainer.outputs import grouped, make_numbered_output
from trainer.catalog import read_catalog
from trainer.embed import (
    embed_dataset,
    embed_files,
    embed_texts,
    everything,
    granularities_of,
    reading_of,
    text_columns,
    video_columns,
)
from trainer.encoding import encode
from trainer.frames import read_frames
from trainer.media_reader import MediaReader
from trainer.sequence import Reading, SequenceLoader
from trainer.vectors import TEXT, VIDEO, Facts, publishing, rows_of


def column(path, name):
    return rows_of(pq.read_table(path)[name].combine_chunks())


def test_a_data_sets_vectors_are_those_of_encoding_it(pretrained, tiny_model_folder, numbered_output, tmp_path):
    out = tmp_path / "v.parquet"
    with read_catalog(str(numbered_output), granularities=["LVST", "IT"]) as catalog:
        found = embed_dataset(pretrained, str(tiny_model_folder), catalog, str(out))
        reading = reading_of(pretrained, "LVST")
        with SequenceLoader(everything(catalog), "LVST", Reading(3, 32, batch_size=5)) as loader:
            wanted = encode(pretrained, loader, reading.n_iter_video, reading.n_iter_text)
        sources = [catalog.sample("LVST", number).source_id for number in range(18)]
    assert {name: (one.num_rows, one.damaged) for name, one in found.items()} == {"LVST": (18, []), "IT": (18, [])}
    table = pq.read_table(out)
    assert table["granularity"].to_pylist() == ["LVST"] * 18 + ["IT"] * 18
    assert tuple(table["key"].to_pylist()[:18]) == wanted.keys
    assert table["source_id"].to_pylist()[:18] == sources
    assert table["number"].to_pylist() == [*range(18), *range(18)]
    np.testing.assert_allclose(column(out, VIDEO)[:18], wanted.video_VD, atol=1e-6)
    np.testing.assert_allclose(column(out, TEXT)[:18], wanted.text_VD, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(column(out, VIDEO), axis=1), 1, atol=1e-6)


def test_a_damaged_sample_costs_itself_and_is_named(pretrained, tiny_model_folder, tmp_path):
    output = make_numbered_output(tmp_path, 4)
    with read_catalog(str(output), granularities=["IT"]) as catalog:
        sample = catalog.sample("IT", 2)
        with Path(sample.media_uri).open("r+b") as tar:
            tar.seek(sample.media_offset_bytes)
            tar.write(bytes(64))
        found = embed_dataset(pretrained, str(tiny_model_folder), catalog, str(tmp_path / "v.parquet"))["IT"]
    assert found.num_rows == 3 and [one.key for one in found.damaged] == [sample.key]
    assert pq.read_table(tmp_path / "v.parquet")["number"].to_pylist() == [0, 1, 3]


def test_nothing_is_published_where_nothing_can_be_read(pretrained, tiny_model_folder, tmp_path):
    output = make_numbered_output(tmp_path, 2)
    with read_catalog(str(output), granularities=["LVLT"]) as catalog:
        shutil.rmtree(output / "LVLT")
        with pytest.raises(GexError, match="none of 2 samples of LVLT can be read"):
            embed_dataset(pretrained, str(tiny_model_folder), catalog, str(tmp_path / "v.parquet"))
    assert not (tmp_path / "v.parquet").exists()


def test_texts_keep_their_order(pretrained, tmp_path):
    texts = ["a picture of 3", "half 0 of 1", "a picture of 3"]
    with publishing(str(tmp_path / "t.parquet"), text_columns(16), Facts("m", {})) as writer:
        assert embed_texts(pretrained, texts, 1, writer).num_rows == 3
    assert pq.read_table(tmp_path / "t.parquet")["text"].to_pylist() == texts
    np.testing.assert_allclose(column(tmp_path / "t.parquet", TEXT), pretrained.encode_texts(texts, 1), atol=1e-6)


def test_files_are_read_whole_and_damaged_ones_are_named(pretrained, numbered_output, tmp_path):
    with read_catalog(str(numbered_output), granularities=["LVLT"]) as catalog:
        sample = catalog.sample("LVLT", 1)
    media = MediaReader()
    (tmp_path / "clip.mp4").write_bytes(media.read(sample))
    frames = read_frames(sample, 4, 32, media)
    media.close()
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    uris = [str(tmp_path / name) for name in ("absent.mp4", "clip.mp4", "bad.mp4")]
    with publishing(str(tmp_path / "f.parquet"), video_columns(16), Facts("m", {})) as writer:
        found = embed_files(pretrained, uris, reading_of(pretrained, "LVLT"), writer)
    assert found.num_rows == 1 and [one.key for one in found.damaged] == [uris[0], uris[2]]
    assert pq.read_table(tmp_path / "f.parquet")["file"].to_pylist() == [uris[1]]
    wanted = pretrained.encode_videos(torch.from_numpy(frames)[None], 3)
    np.testing.assert_allclose(column(tmp_path / "f.parquet", VIDEO), wanted, atol=1e-6)


def test_images_among_the_files_are_read_with_one_frame_and_rows_keep_their_order(
    pretrained, numbered_output, tmp_path
):
    """An image among videos ended everything: "files holds images, of which 4 frames are asked"."""
    uris = [str(tmp_path / name) for name in ("a.mp4", "b.jpg", "bad.png", "c.mp4", "d.jpg")]
    media, samples = MediaReader(), {}
    with read_catalog(str(numbered_output), granularities=["LVLT", "IT"]) as catalog:
        for number, uri in enumerate(uris):
            name = "LVLT" if uri.endswith("mp4") else "IT"
            samples[uri] = catalog.sample(name, number)
            Path(uri).write_bytes(media.read(samples[uri]))
    Path(uris[2]).write_bytes(b"no picture")
    with publishing(str(tmp_path / "f.parquet"), video_columns(16), Facts("m", {})) as writer:
        found = embed_files(pretrained, uris, reading_of(pretrained, "LVLT"), writer)
    assert found.num_rows == 4 and [one.key for one in found.damaged] == [uris[2]]
    good = [uri for uri in uris if uri != uris[2]]
    assert pq.read_table(tmp_path / "f.parquet")["file"].to_pylist() == good
    for row, uri in enumerate(good):
        frames = read_frames(samples[uri], 4 if uri.endswith("mp4") else 1, 32, media)
        wanted = pretrained.encode_videos(torch.from_numpy(frames)[None], 3)[0]
        np.testing.assert_allclose(column(tmp_path / "f.parquet", VIDEO)[row], wanted, atol=1e-6)
    media.close()


def test_texts_that_do_not_fit_the_text_tower_are_counted(pretrained, tmp_path):
    """The tower of the model reads 24 tokens; what came behind them went without a word."""
    long = "half of a picture " * 20
    with publishing(str(tmp_path / "t.parquet"), text_columns(16), Facts("m", {})) as writer:
        found = embed_texts(pretrained, [long, "a cat", long, long + "a cat"], 1, writer)
    assert (found.num_rows, found.num_truncated_texts) == (4, 3)
    first, _, _, last = column(tmp_path / "t.parquet", TEXT)
    assert np.array_equal(first, last)


def test_granularities_that_the_model_does_not_know_are_left_out_and_a_named_one_is_refused(pretrained, tmp_path):
    """One of them ended everything."""
    output = str(grouped(tmp_path, ("channel", ["a"])))
    assert granularities_of(pretrained, output) == (["LVLT", "LVST", "IT"], ["GRP"])
    assert granularities_of(pretrained, output, ["IT", "LVST", "IT"]) == (["IT", "LVST"], [])
    with pytest.raises(GexError, match=r"not trained on granularity 'GRP'.*name others with --granularity"):
        granularities_of(pretrained, output, ["IT", "GRP"])
    with pytest.raises(GexError, match=r"there is no dataset\.json in it"):
        granularities_of(pretrained, str(tmp_path / "nowhere"))
    manifest = read_manifest(output)
    nodes = {"GRP": manifest.snapshots[0].granularities["GRP"]}
    publish(Path(output), replace(manifest, snapshots=(replace(manifest.snapshots[0], granularities=nodes),)))
    with pytest.raises(GexError, match=r"#iter of no granularity of .* is known: published are GRP, known are LVLT,"):
        granularities_of(pretrained, output)


def test_a_granularity_is_read_as_trained_or_as_in_the_paper(pretrained):
    assert reading_of(pretrained, "LVLT").num_frames == 4
    assert reading_of(pretrained, "SVST").num_frames == 16
    with pytest.raises(GexError, match="not trained on granularity 'X'"):
        reading_of(pretrained, "X")
