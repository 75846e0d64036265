from __future__ import annotations

import io
import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from gex_pipeline import receipts
from gex_pipeline.receipts import LOSS_SCHEMA, RECEIPT_SCHEMA, read_receipt, write_losses, write_receipt
from gex_pipeline.shard_format import Loss, Receipt, text_digest
from tests.test_shard_format import KEYS, record_of

RECEIPT = Receipt("LVLT", 3, "plan", "hash", 2, 1024, "ab" * 32)


def test_a_receipt_says_what_the_shard_holds(tmp_path):
    uri = f"{tmp_path}/LVLT/LVLT-000003.parquet"
    samples = [
        record_of(KEYS[0], media_uri="LVLT/LVLT-000003.tar", media_offset_bytes=512, media_size_bytes=7),
        record_of(KEYS[1], source_text_digest="d", scores={"b": 1.0, "a": 0.5}, made_by="reference"),
    ]
    write_receipt(uri, RECEIPT, samples)
    assert read_receipt(uri) == RECEIPT
    table = pq.read_table(uri)
    assert table.schema.names == RECEIPT_SCHEMA.names
    first, second = table.to_pylist()
    assert first["key"] == KEYS[0]
    assert first["shard"] == 3
    assert first["text_digest"] == text_digest(first["text"])
    assert first["num_words"] == 5
    assert first["segments"][0]["text"] == "Ein Hund läuft."
    assert (first["media_uri"], first["media_offset_bytes"], first["media_size_bytes"]) == (
        "LVLT/LVLT-000003.tar",
        512,
        7,
    )
    assert json.loads(second["scores"]) == {"a": 0.5, "b": 1.0}
    assert first["source_text_digest"] is None


def test_of_a_receipt_only_the_end_is_read_and_a_long_footer_whole(tmp_path, monkeypatch):
    """A footer with long texts in its statistics is longer than what is read at first."""
    uri, long = f"{tmp_path}/LVLT-000003.parquet", replace(RECEIPT, recipe_hash="0123456789abcdef" * 10_000)
    write_receipt(uri, long, [record_of(key) for key in KEYS[:2]])
    assert read_receipt(uri) == long
    write_receipt(uri, RECEIPT, [record_of(key) for key in KEYS[:2]])
    content = (tmp_path / "LVLT-000003.parquet").read_bytes()
    (tmp_path / "LVLT-000003.parquet").write_bytes(b"PAR1" + bytes(1_000_000) + content[4:])
    reads: list[int] = []

    class Counting(io.FileIO):
        def read(self, *size):
            reads.append(len(found := super().read(*size)))
            return found

    monkeypatch.setattr(receipts.storage, "open_read", Counting)
    assert read_receipt(uri) == RECEIPT
    assert reads == [65536]


def test_a_receipt_that_counts_wrong_is_not_written(tmp_path):
    uri = f"{tmp_path}/LVLT-000003.parquet"
    with pytest.raises(AssertionError, match=r"LVLT-000003 counts 2 samples and lists 1"):
        write_receipt(uri, RECEIPT, [record_of(KEYS[0])])
    assert list(tmp_path.iterdir()) == []


def test_equal_receipts_have_equal_bytes(tmp_path):
    for name in "ab":
        write_receipt(f"{tmp_path}/{name}", RECEIPT, [record_of(key) for key in KEYS[:2]])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "not_parquet", "other_parquet", "other_fields"])
def test_without_a_receipt_that_can_be_read_there_is_no_shard(tmp_path, damage):
    import pyarrow as pa

    file = tmp_path / "x.parquet"
    write_receipt(str(file), RECEIPT, [record_of(key) for key in KEYS[:2]])
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "not_parquet":
        file.write_bytes(b"x" * 500)
    else:
        metadata = {b"gex": b'{"granularity": "LVLT"}'} if damage == "other_fields" else None
        pq.write_table(pa.table({"a": [1]}).replace_schema_metadata(metadata), file)
    assert read_receipt(str(file)) is None


def test_an_empty_shards_receipt_is_a_receipt(tmp_path):
    receipt = Receipt("LVLT", 0, "plan", "hash", 0, 1024, "ab")
    write_receipt(f"{tmp_path}/x", receipt, [])
    assert read_receipt(f"{tmp_path}/x") == receipt
    assert pq.read_table(f"{tmp_path}/x").schema.names == RECEIPT_SCHEMA.names


def test_losses_are_a_row_each_with_every_column_of_the_contract(tmp_path):
    loss = Loss("LVLT", "build", "rejected", "media_missing", "gone", "clip", "v1", '{"id": "clip"}')
    write_losses(f"{tmp_path}/l", [loss])
    assert pq.read_table(f"{tmp_path}/l").to_pylist() == [vars(loss)]
    assert LOSS_SCHEMA.names == ["granularity", "stage", "state", "reason", "detail", "id", "source_id", "row"]
