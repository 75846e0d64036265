"""A file of vectors says what it is of, is there whole or not at all, and is refused where it does not fit."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gex_pipeline.errors import GexError
from trainer import vectors
from trainer.data_settings import GranularitySettings
from trainer.embed import dataset_columns
from trainer.vectors import (
    TEXT,
    VIDEO,
    Facts,
    VectorFile,
    dataset_digest,
    facts_of,
    model_digest,
    publishing,
    rows_of,
)

READING = GranularitySettings(num_frames=4, n_iter_video=3, n_iter_text=1)
DIM = 3


def write(uri, num_rows=10, granularity="LVLT", facts=None):
    drawn = np.random.default_rng(0).standard_normal((2, num_rows, DIM)).astype(np.float32)
    facts = facts or Facts("model", {granularity: facts_of(READING, "dataset")})
    with publishing(str(uri), dataset_columns(DIM), facts) as writer:
        for first in range(0, num_rows, 4):
            rows = range(num_rows)[first : first + 4]
            writer.add(
                {
                    "key": [f"k{row}" for row in rows],
                    "granularity": [granularity if row % 5 else "other" for row in rows],
                    "source_id": ["s"] * len(rows),
                    "number": list(rows),
                    VIDEO: drawn[0, first : first + 4],
                    TEXT: drawn[1, first : first + 4],
                }
            )
    return drawn


def test_what_is_written_is_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "_ROW_GROUP", 5)
    drawn = write(tmp_path / "v.parquet", 10)
    table = pq.read_table(tmp_path / "v.parquet")
    assert table.schema.field(VIDEO).type == pa.list_(pa.float32(), DIM)
    assert np.array_equal(rows_of(table[VIDEO].combine_chunks()), drawn[0])
    assert np.array_equal(rows_of(table[TEXT].combine_chunks()), drawn[1])
    assert pq.ParquetFile(tmp_path / "v.parquet").num_row_groups > 1
    file = VectorFile(tmp_path / "v.parquet", "v")
    blocks = list(file.blocks("LVLT"))
    assert np.concatenate([block.numbers for block in blocks]).tolist() == [1, 2, 3, 4, 6, 7, 8, 9]
    assert [key for block in blocks for key in block.keys][:2] == ["k1", "k2"]
    assert np.array_equal(np.concatenate([block.video_BD for block in blocks]), drawn[0][[1, 2, 3, 4, 6, 7, 8, 9]])


def test_a_failure_leaves_nothing_behind(tmp_path):
    with (
        pytest.raises(RuntimeError, match="halfway"),
        publishing(str(tmp_path / "v.parquet"), dataset_columns(DIM), Facts("m", {})),
    ):
        raise RuntimeError("halfway")
    assert list(tmp_path.iterdir()) == []


def test_vectors_that_do_not_fit_are_refused(tmp_path):
    write(tmp_path / "v.parquet")
    file = VectorFile(tmp_path / "v.parquet", "v")
    wanted = facts_of(READING, "dataset")
    file.check("model", "LVLT", wanted)
    with pytest.raises(GexError, match="vectors of another model"):
        file.check("other", "LVLT", wanted)
    with pytest.raises(GexError, match="no vectors of IT, only of LVLT"):
        file.check("model", "IT", wanted)
    with pytest.raises(GexError, match="another state of this one"):
        file.check("model", "LVLT", wanted | {"dataset": "grown"})
    with pytest.raises(GexError, match="n_iter_video = 3, wanted is 1"):
        file.check("model", "LVLT", wanted | {"n_iter_video": 1})


def test_a_file_that_holds_no_vectors_is_refused(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"nothing")
    pq.write_table(pa.table({"key": ["k"]}), tmp_path / "b.parquet")
    for name in ("a", "b", "absent"):
        with pytest.raises(GexError, match="is not a file of vectors that gex embed wrote"):
            VectorFile(tmp_path / f"{name}.parquet", name)


def test_a_models_digest_is_of_weights_settings_and_tokenizer_not_of_its_card(tiny_model_folder, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(tiny_model_folder, copy)
    before = model_digest(str(tiny_model_folder))
    (copy / "README.md").write_text("another card")
    assert model_digest(str(copy)) == before
    for name in ("model.safetensors", "config.json", "clip/tokenizer.json"):
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content[:-1] + b"?")
        assert model_digest(str(copy)) != before
        (copy / name).write_bytes(content)


def test_a_data_sets_digest_is_of_one_granularitys_shards(numbered_output, tmp_path):
    digests = {dataset_digest(str(numbered_output), name) for name in ("LVLT", "LVST", "IT")}
    assert len(digests) == 3
    with pytest.raises(GexError, match="no data set is published"):
        dataset_digest(str(tmp_path), "LVLT")
