"""Planning against a plain group-by and a naive grouping statement, over metadata in InternVid's proportions.

Generates clip metadata with DuckDB (4 videos to 10 clips, every fourth video has four clips or more, rows
in no order), ingests it with `gex_pipeline.ingest`, then times three things over the written clips table,
each in a fresh process: planning as a run does it (plan and excluded tables written as Parquet), the plain
group-by that any plan contains, and a list of structs a video ordered by start, which needs a larger memory
limit than planning has. The counts of the plan are checked against queries that share nothing with it. The
whole is repeated with a hundredth of the clips, to compare the cost of a group.

Exits with 1 when a count is wrong, whatever the time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

MIN_CLIPS = 4
_TEXT = (
    "a the man woman child dog cat car tree is are walking running sitting standing holding red blue green white "
    "on in near at table street room kitchen field with and talking playing small large"
)
WORDS = _TEXT.split()
# The largest process a worker may be: what the library gives its own database.
LIMIT_BYTES = 2_500_000_000
NAIVE_LIMIT_BYTES = 16_000_000_000  # under the limit above the naive statement runs out of memory


def generate(file: Path, num_videos: int) -> None:
    """Write the metadata of `num_videos` videos, 2.5 clips a video, as one Parquet file of shuffled rows."""
    words = "[" + ", ".join(f"'{word}'" for word in WORDS) + "]"
    draw = "(hash({}, i, n) % 1000)::BIGINT"
    with duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '{LIMIT_BYTES}B'; SET temp_directory = '{file.parent / 'spill'}'")
        connection.execute("SET enable_progress_bar = false")
        connection.execute(f"""
            COPY (
              WITH videos AS (
                -- one video in four: 4 clips and more, 5.2 on average; the others: 1 to 3, 1.6 on average
                SELECT i, replace(replace(left(base64(unhex(md5(i::VARCHAR))), 11), '+', '-'), '/', '_') AS video,
                  CASE WHEN i % 4 = 0 THEN [4, 4, 4, 4, 5, 5, 5, 6, 6, 9][1 + (i // 4) % 10]
                    ELSE [1, 1, 1, 1, 1, 1, 2, 2, 3, 3][1 + (i // 4) % 10] END AS num_clips
                FROM range({num_videos}) AS r(i)
              ),
              clips AS (SELECT *, unnest(range(num_clips)) AS n FROM videos),
              timed AS (
                SELECT *, n * 15000 + {draw.format("'start'")} AS start_ms, 5000 + 10 * {draw.format("'end'")} AS ms
                FROM clips
              )
              SELECT video AS "YoutubeID",
                strftime(make_timestamp(start_ms * 1000), '%H:%M:%S.%g') AS "Start_timestamp",
                strftime(make_timestamp((start_ms + ms) * 1000), '%H:%M:%S.%g') AS "End_timestamp",
                array_to_string(list_transform(range(7 + {draw.format("'words'")} % 6),
                  lambda k: {words}[1 + (hash(k, i, n) % {len(WORDS)})::BIGINT]), ' ') AS "Caption",
                (4 + {draw.format("'aesthetic'")} / 500.0)::FLOAT AS "Aesthetic_Score",
                ({draw.format("'umt'")} / 1000.0)::FLOAT AS "UMT_Score"
              FROM timed ORDER BY hash('order', i, n)
            ) TO '{file}' (FORMAT parquet, COMPRESSION zstd)
        """)


def open_example(folder: Path) -> Any:
    """The run over the generated metadata in `folder`."""
    from gex_pipeline.recipe import make_recipe
    from gex_pipeline.run_state import open_run

    recipe = {
        "name": "planning benchmark",
        "output": "output",
        "source": {
            "clips": "clips.parquet",
            "media": {"kind": "files", "uri": "clips/{YoutubeID}_{Start_timestamp}_{End_timestamp}.mp4", "colon": "-"},
        },
        "granularity": {
            "SVST": {},
            "LVLT": {"operation": "integrate", "from": "SVST", "min_clips": MIN_CLIPS},
        },
    }
    return open_run(make_recipe(recipe, base=str(folder)))


def step_ingest(folder: Path) -> dict[str, Any]:
    """Read and check the metadata, write the clips table."""
    from gex_pipeline.ingest import ingest, publish_clips
    from gex_pipeline.tables import Database

    run = open_example(folder)
    with Database() as database:
        found = ingest(database, run)
        publish_clips(database, run)
    return {"num_clips": found.account.num_used, "num_rows": found.account.num_in}


def step_plan(folder: Path) -> dict[str, Any]:
    """Plan as a run does, from the written clips table to the written plan."""
    from gex_pipeline.planning import plan_node, publish_plan, use_clips
    from gex_pipeline.tables import Database

    run = open_example(folder)
    node = run.recipe.graph.nodes["LVLT"]
    with Database() as database:
        use_clips(database, run)
        planned = plan_node(database, run, node)
        publish_plan(database, run, node)
    return {"num_groups": planned.num_samples, "num_members": planned.num_members, "left_out": planned.left_out}


def _bare(folder: Path, statement: str, limit_bytes: int = LIMIT_BYTES) -> dict[str, Any]:
    """A statement in a DuckDB of its own."""
    clips = open_example(folder).layout.table("clips", 0)
    with tempfile.TemporaryDirectory(dir=folder) as spill, duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '{limit_bytes}B'; SET temp_directory = '{spill}'")
        connection.execute("SET preserve_insertion_order = false; SET enable_progress_bar = false")
        (num_groups, num_members) = connection.execute(statement.format(clips=f"read_parquet('{clips}')")).fetchone()
    return {"num_groups": num_groups, "num_members": num_members}


def step_group_by(folder: Path) -> dict[str, Any]:
    """The plain group-by: clips a video, nothing else."""
    return _bare(
        folder,
        "SELECT count(*), sum(n)::BIGINT FROM "
        f"(SELECT count(*) AS n FROM {{clips}} GROUP BY source_id HAVING n >= {MIN_CLIPS})",
    )


def step_naive(folder: Path) -> dict[str, Any]:
    """The statement one would write first: every video's clips as a list of structs by time, as Parquet."""
    target = folder / "naive.parquet"
    members = "{{'id': clip_id, 'start_s': start_s, 'end_s': end_s, 'text': text, 'media_uri': media_uri}}"
    return _bare(
        folder,
        f"COPY (SELECT source_id, list({members} ORDER BY start_s, end_s) AS members, count(*) AS num_members "
        f"FROM {{clips}} GROUP BY source_id HAVING num_members >= {MIN_CLIPS}) "
        f"TO '{target}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1); "
        f"SELECT count(*), sum(num_members)::BIGINT FROM read_parquet('{target}')",
        NAIVE_LIMIT_BYTES,
    )


STEPS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "ingest": step_ingest,
    "plan": step_plan,
    "group-by": step_group_by,
    "naive": step_naive,
}


def run_step(name: str, folder: Path) -> dict[str, Any]:
    """Time one step in a fresh process; adds seconds (without starting Python) and peak memory in bytes."""
    command = [sys.executable, __file__, "--scratch", str(folder), "--step", name]
    root = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    if done.returncode != 0:
        return {"failed": done.returncode}
    return json.loads(done.stdout.splitlines()[-1])


def _child(name: str, folder: Path) -> None:
    import gex_pipeline.planning  # noqa: F401  starting Python is another benchmark's matter

    started, cpu = time.perf_counter(), time.process_time()
    result = STEPS[name](folder)
    result["seconds"], result["cpu_s"] = time.perf_counter() - started, time.process_time() - cpu
    # Not getrusage: its peak is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    result["peak_bytes"] = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
    print(json.dumps(result))


def check(folder: Path, num_videos: int, plan: dict[str, Any]) -> list[str]:
    """What is wrong with the written plan, by queries over the generated metadata that share nothing with it."""
    tables = folder / "output" / "tables"
    plan_file, excluded = tables / "plan-LVLT-000000.parquet", tables / "excluded-LVLT-000000.parquet"
    metadata = folder / "clips.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '{LIMIT_BYTES}B'; SET temp_directory = '{folder / 'spill'}'")
        connection.execute("SET enable_progress_bar = false")

        def one(statement: str) -> Any:
            return connection.execute(statement).fetchone()

        long = f"SELECT \"YoutubeID\" AS v, count(*) AS n FROM '{metadata}' GROUP BY v HAVING n >= {MIN_CLIPS}"
        (num_rows,) = one(f"SELECT count(*) FROM '{metadata}'")
        expected = one(f"SELECT count(*), sum(n)::BIGINT FROM ({long})")
        found = one(f"SELECT count(DISTINCT key), count(*) FROM '{plan_file}'")
        (num_excluded,) = one(f"SELECT count(*) FROM '{excluded}'")
        (disordered,) = one(
            f"SELECT count(*) FROM (SELECT start_s < lag(start_s) OVER (PARTITION BY key ORDER BY position) AS wrong "
            f"FROM '{plan_file}' WHERE abs(hash(key)::HUGEINT) % 100 = 0) WHERE wrong"
        )
        (mixed,) = one(
            f"SELECT count(*) FROM (SELECT key FROM '{plan_file}' GROUP BY key "
            "HAVING count(DISTINCT source_id) > 1 OR max(position) <> count(*) OR count(DISTINCT shard) > 1)"
        )
    wrong = []
    if found != expected:
        wrong.append(f"plan holds {found} groups and clips, the metadata {expected}")
    if (plan["num_groups"], plan["num_members"]) != expected:
        wrong.append(f"the plan says of itself {plan['num_groups']}, {plan['num_members']}; expected {expected}")
    if num_excluded != num_rows - expected[1]:
        wrong.append(f"{num_excluded} clips are excluded, expected {num_rows - expected[1]}")
    if disordered or mixed:
        wrong.append(f"{disordered} clips out of order, {mixed} groups mixed up")
    if expected[0] != num_videos // 4:
        wrong.append(f"the generated metadata hold {expected[0]} groups, not {num_videos // 4}")
    return wrong


def measure(folder: Path, num_videos: int, repeats: int) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Generate, ingest and plan one size; returns the medians by step and what is wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "clips.parquet").exists():
        generate(folder / "clips.parquet", num_videos)
    results: dict[str, list[dict[str, Any]]] = {"ingest": [run_step("ingest", folder)]}
    for _ in range(repeats):  # alternating: a neighbour on the machine slows all of them alike
        for name in ("group-by", "plan", "naive"):
            results.setdefault(name, []).append(run_step(name, folder))
    wrong = [f"{name} ended with {runs[0]['failed']}" for name, runs in results.items() if "failed" in runs[0]]
    medians = {
        name: {
            key: statistics.median(run.get(key, float("nan")) for run in runs)
            for key in ("seconds", "cpu_s", "peak_bytes")
        }
        for name, runs in results.items()
    }
    if "failed" in results["ingest"][0] or "failed" in results["plan"][-1]:
        return medians, wrong
    wrong = [text for text in wrong if not text.startswith("naive")]  # that it runs out of memory is a result
    return medians, wrong + check(folder, num_videos, results["plan"][-1])


def report(name: str, num_videos: int, medians: dict[str, dict[str, float]]) -> None:
    """Print one size's figures."""
    base = medians["group-by"]["seconds"]
    print(f"{name}: {num_videos * 5 // 2:,} clips of {num_videos:,} videos, {num_videos // 4:,} groups")
    for step in ("ingest", "group-by", "plan", "naive"):
        found = medians[step]
        times = f"{found['seconds'] / base:6.1f} x group-by" if step in ("plan", "naive") else ""
        print(
            f"  {step:<9} {found['seconds']:7.2f} s {found['cpu_s']:7.2f} s of processor "
            f"{found['peak_bytes'] / 1e9:6.2f} GB  {times}"
        )
    cost = [medians["plan"][name] / (num_videos // 4) * 1e6 for name in ("seconds", "cpu_s")]
    print(f"  a group   {cost[0]:7.2f} µs, {cost[1]:.2f} µs of processor")


def main() -> int:
    """Parse, measure both sizes, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=4_000_000, help="videos; 2.5 clips each (default 4,000,000)")
    parser.add_argument("--repeats", type=int, default=3, help="times each step is timed; medians count (default 3)")
    parser.add_argument("--scratch", type=Path, help="folder for generated and written tables (about 5 GB, kept)")
    parser.add_argument("--step", choices=sorted(STEPS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        _child(arguments.step, arguments.scratch)
        return 0
    with tempfile.TemporaryDirectory(prefix="gex-benchmark-") as scratch:
        root = arguments.scratch or Path(scratch)
        problems = []
        for name, num_videos in (("small", arguments.videos // 100), ("full", arguments.videos)):
            medians, wrong = measure(root / name, num_videos, arguments.repeats)
            report(name, num_videos, medians)
            problems += [f"{name}: {text}" for text in wrong]
    for text in problems:
        print(f"WRONG {text}")
    print("counts are right" if not problems else "counts are WRONG")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
