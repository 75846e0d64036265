from __future__ import annotations

import pytest

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from gex_pipeline.layout import Layout

LAYOUT = Layout("s3://bucket/out/")


def test_everything_lies_below_the_output():
    assert LAYOUT.manifest == "s3://bucket/out/dataset.json"
    assert LAYOUT.table("plan-LVLT", 3) == "s3://bucket/out/tables/plan-LVLT-000003.parquet"
    assert (
        LAYOUT.tar("LVLT", 12)
        == f"s3://bucket/out/{LAYOUT.tar_path('LVLT', 12)}"
        == "s3://bucket/out/LVLT/LVLT-000012.tar"
    )
    assert LAYOUT.receipt("LVLT", 12) == "s3://bucket/out/LVLT/LVLT-000012.parquet"
    assert LAYOUT.losses("LVLT", 12) == "s3://bucket/out/tables/losses/LVLT-000012.parquet"
    assert LAYOUT.sizes("LVLT") == "s3://bucket/out/LVLT/sizes.json"
    assert LAYOUT.part("summaries-LVST", 1, "part-000000").startswith(
        "s3://bucket/out/tables/parts/summaries-LVST-000001/"
    )


def test_a_part_is_found_by_the_glob_of_its_parts_and_by_no_other(tmp_path):
    layout = Layout(str(tmp_path))
    for name, snapshot in (("a", 1), ("a", 2), ("ab", 1)):
        storage.publish_bytes(b"x", layout.part(name, snapshot, "part-000000"))
    assert [file.uri for file in storage.list_files(layout.part_glob("a", 1))] == [layout.part("a", 1, "part-000000")]


def test_a_name_cannot_lead_out_of_a_report():
    with pytest.raises(GexError, match=r"leads out"):
        LAYOUT.report("../x")
