"""A mistake in an operation of one's own: what a shard's worker says of it."""

from __future__ import annotations

import pyarrow.parquet as pq

from gex_pipeline import ray_worker, registry
from gex_pipeline.run_state import begin, open_run
from tests.making_runs import clip_row, plan, recipe_of, write_jsonl

MISTAKEN = """
from gex_pipeline.operations.base import Operation

class Mistaken(Operation):
    def make(self, group, work):
        return self.half_of(group)

    def half_of(self, group):
        raise ValueError("my own mistake")
"""


def test_a_mistake_in_an_operation_of_ones_own_is_told_with_sample_file_and_line(tmp_path, monkeypatch):
    """Its words were all that came out of the worker: no sample, no file, no line, and the advice to run again."""
    package = tmp_path / "package"
    info = package / "gex_mistaken-1.0.dist-info"
    info.mkdir(parents=True)
    (package / "gex_mistaken.py").write_text(MISTAKEN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gex-mistaken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gex.operations]\nmistaken = gex_mistaken:Mistaken\n")
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.setattr(ray_worker, "_num_deaths", lambda: 0)  # asks Ray
    registry._known.cache_clear()
    try:
        write_jsonl(tmp_path / "clips.jsonl", [clip_row()])
        recipe = recipe_of(tmp_path, None, {"SVST": {}, "OWN": {"operation": "mistaken", "from": "SVST"}})
        job, (shard,) = plan(begin(open_run(recipe)), "OWN")
        row = ray_worker.Builder(job)({"shard": shard})
    finally:
        registry._known.cache_clear()
    (key,) = set(pq.read_table(job.plan_uri)["key"].to_pylist())
    line = 1 + MISTAKEN.splitlines().index('        raise ValueError("my own mistake")')
    assert row["error"] == (
        f"ValueError: my own mistake (sample {key}; gex_mistaken.py, line {line}, in half_of); mend it there"
    )
    assert row["transient"] is False
