"""What `gex plan` says of an output that holds something is what the run then makes of it."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from gex_pipeline.cli.plan import plan_all
from gex_pipeline.run_state import open_run
from tests.making_runs import clip_row, recipe_of, run_here, write_jsonl

PAIRS = {"operation": "integrate", "from": "SVST", "min_clips": 2, "max_clips": 2}
CHANNELS = {"operation": "integrate", "from": "PAIR", "by": "channel", "min_clips": 2}
TRIOS = {"operation": "integrate", "from": "PAIR", "min_clips": 2}
IMAGES = {"operation": "compress_video", "from": "TRIO"}
STILLS = {"operation": "compress_video", "from": "PAIR"}


@pytest.fixture
def expand(small_clips, tmp_path):
    """Metadata of these drawn clips under this graph: what is planned, and what a run then excludes."""
    (tmp_path / "clips").symlink_to(small_clips)

    def run(rows: list[tuple[str, str]], granularity: dict) -> tuple[dict, dict]:
        """`rows` are clips as ``a-0``, each with its channel."""
        found = [
            clip_row(name[0], int(name[2]), int(name[2]) + 0.48, name, file=f"{name}.mp4", channel=channel)
            for name, channel in rows
        ]
        write_jsonl(tmp_path / "clips.jsonl", found)
        source = {"media": {"kind": "column", "column": "file", "root": "clips"}}
        recipe = recipe_of(tmp_path, source, {"SVST": {}} | granularity)
        _, plans = plan_all(open_run(recipe, accept_changes=True))
        planned = {one.granularity: (one.num_parents, one.num_samples, one.left_out) for one in plans}
        return planned, {one.stage: one.excluded for one in run_here(recipe).accounts}

    return run


def samples_of(folder, granularity: str) -> list[tuple[str, list[str]]]:
    """Label and captions of each sample, over all snapshots."""
    files = sorted((folder / "output" / granularity).glob("*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    return sorted((row["source_id"], [segment["text"] for segment in row["segments"]]) for row in rows)


FOUR = [(f"a-{number}", "x") for number in range(4)]


def test_a_granularity_that_is_added_is_planned_of_what_is_published(expand, tmp_path):
    expand(FOUR, {"PAIR": PAIRS})
    both = {"PAIR": PAIRS, "STILL": STILLS, "TRIO": TRIOS, "IMAGE": IMAGES, "CHANNEL": CHANNELS}
    planned, _ = expand([*FOUR, ("b-0", "x"), ("b-1", "x")], both)
    assert planned == {
        "PAIR": (2, 1, {}),
        "STILL": (3, 3, {}),
        "TRIO": (3, 1, {"too_few_clips": 1}),
        "IMAGE": (1, 1, {}),
        "CHANNEL": (3, 1, {}),
    }
    made = {name: len(samples_of(tmp_path, name)) for name in both}
    assert made == {"PAIR": 3, "STILL": 3, "TRIO": 1, "IMAGE": 1, "CHANNEL": 1}


def test_what_waited_for_company_is_planned_with_it(expand, tmp_path):
    expand(FOUR[:2], {"PAIR": PAIRS, "CHANNEL": CHANNELS})
    planned, _ = expand([*FOUR[:2], ("b-0", "x"), ("b-1", "x")], {"PAIR": PAIRS, "CHANNEL": CHANNELS})
    assert planned["CHANNEL"] == (2, 1, {})
    assert samples_of(tmp_path, "CHANNEL") == [("x", ["a-0", "a-1", "b-0", "b-1"])]


def test_a_sample_of_two_values_is_of_neither(expand, tmp_path):
    """It was of its first clip's: a third of what a channel's sample held was another channel's."""
    rows = [*FOUR[:2], ("b-0", "x"), ("b-1", "y"), ("a-2", "x"), ("a-3", "x")]
    planned, excluded = expand(rows, {"PAIR": PAIRS, "CHANNEL": CHANNELS})
    assert planned["CHANNEL"] == (3, 1, {"missing_group_value": 1})
    assert {"missing_group_value": 1} in excluded.values()
    assert samples_of(tmp_path, "CHANNEL") == [("x", ["a-0", "a-1", "a-2", "a-3"])]
