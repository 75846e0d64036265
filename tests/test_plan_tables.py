"""The tables of plans as who reads them all sees them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from gex_pipeline.receipts import SEGMENT_TYPE
from tests.making_runs import LVLT, clip_row, recipe_of, run_here, write_jsonl
from tests.media.making_clips import make_clip


def test_plans_of_all_operations_over_clips_and_samples_have_one_schema(tmp_path):
    """Those of clips had text for segments, and other whole numbers: no reader but DuckDB took them together."""
    (tmp_path / "clips").mkdir()
    for start_s in range(2):
        make_clip(tmp_path / f"clips/v1-{start_s}.mp4", start_s)
    write_jsonl(tmp_path / "clips.jsonl", [clip_row("v1", str(start_s), str(start_s + 0.48)) for start_s in range(2)])
    granularity = {
        "SVST": {"pack": True},
        "LVLT": LVLT,
        "RANDOM": {**LVLT, "by": "random"},
        "LONGER": {**LVLT, "from": "LVLT", "min_clips": 1},
        "IT": {"operation": "compress_video", "from": "SVST"},
        "LONGIT": {"operation": "compress_video", "from": "LVLT"},
    }
    run_here(recipe_of(tmp_path, None, granularity))
    tables = [pq.read_table(path) for path in (tmp_path / "output/tables").glob("plan-*.parquet")]
    assert len(tables) == len(granularity)
    assert len({tuple(zip(table.column_names, table.schema.types, strict=True)) for table in tables}) == 1
    assert tables[0].schema.field("position").type == pa.int64()
    assert tables[0].schema.field("segments").type.value_type == SEGMENT_TYPE
    whole = pa.concat_tables(tables, promote_options="default")  # a column without NULL says so
    num_clips = {len(row["segments"] or ()) for row in whole.select(["segments"]).to_pylist()}
    assert (len(whole), num_clips) == (10, {0, 2})
