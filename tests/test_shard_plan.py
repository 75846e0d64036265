"""A shard's rows out of a plan of many, on a disk and in an object store."""

from __future__ import annotations

import io
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from gex_pipeline.run_state import open_run
from gex_pipeline.shard_job import read_groups
from tests.making_runs import clip_row, plan, recipe_of, write_jsonl

NUM_CLIPS, GROUP_SIZE = 120_000, 1000


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The plan of clips that nobody has; 120 shards of a thousand, in six row groups."""
    folder = tmp_path_factory.mktemp("plan")
    write_jsonl(folder / "clips.jsonl", [clip_row(f"v{n}", "0", "1", f"a dog runs {n}") for n in range(NUM_CLIPS)])
    made, shards = plan(open_run(recipe_of(folder, granularity={"SVST": {"pack": True}})), "SVST")
    assert shards == list(range(NUM_CLIPS // GROUP_SIZE))
    assert pq.ParquetFile(made.plan_uri).metadata.num_row_groups == 6
    return made


def test_every_row_of_the_plan_is_in_the_groups_of_its_shard(job):
    rows = pq.read_table(job.plan_uri).to_pylist()
    for shard in (0, 20, 119):  # the first row group, two of them, the last
        keys = sorted(row["key"] for row in rows if row["shard"] == shard)
        groups = list(read_groups(job, shard))
        assert [group.key for group in groups] == keys
        assert {len(group.members) for group in groups} == {1}
    assert list(read_groups(job, 120)) == []


def test_a_shard_fetches_a_small_part_of_a_plan_in_an_object_store(job, world):
    """It used to copy the plan: ten thousand shards of a plan of 10 GB are 100 TB."""
    bucket = world.make_bucket("plans")
    uri = f"{bucket}/plan-SVST-000000.parquet"
    storage.publish_file(storage.local_path(job.plan_uri), uri)
    size = storage.info(uri).num_bytes
    world.sent.clear()
    assert list(read_groups(replace(job, plan_uri=uri), 60)) == list(read_groups(job, 60))
    assert 0 < world.sent["/plans/plan-SVST-000000.parquet"] < size / 2
    with pytest.raises(GexError, match=r"none.parquet' does not exist"):
        next(read_groups(replace(job, plan_uri=f"{bucket}/none.parquet"), 0))


def test_a_plan_that_says_nothing_of_its_row_groups_is_read_whole(job, tmp_path):
    buffer = io.BytesIO()
    pq.write_table(pq.read_table(job.plan_uri), buffer, row_group_size=20_000, write_statistics=False)
    (tmp_path / "plan.parquet").write_bytes(buffer.getvalue())
    found = list(read_groups(replace(job, plan_uri=str(tmp_path / "plan.parquet")), 7))
    assert found == list(read_groups(job, 7))
