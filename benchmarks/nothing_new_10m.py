"""``gex run`` over an output that knows ten million clips, when nothing is new and when little is.

Generates clip metadata as ``plan_10m.py`` does and makes a snapshot of them with ``gex run``. No video is needed: the
recipe wants more clips of a video than any has, so that every clip is known and none is in a sample. That is the
worst case for what follows, since clips that a rule left out are thought about again by every run with new clips.
Then times, each in a fresh process: the same command over unchanged inputs; over a touched metadata file (the same
bytes, another time), and once more; over one more metadata file of a thousand new clips; and the report of all. Beside
them DuckDB alone, joining the rows of the metadata with the known clips.

Exits with 1 when a run publishes something it should not, changes ``dataset.json`` where nothing is new, or finds
another number of new clips, whatever the time. Processor seconds are those of the command and of the processes it
waited for; memory is the peak of the command's own process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # when this file is run as a script

from benchmarks.plan_10m import LIMIT_BYTES, generate

ROOT = Path(__file__).resolve().parents[1]
RECIPE = """
name = "nothing new"
output = "output"
[source]
clips = "metadata/*.parquet"
media = { kind = "files", uri = "clips/{YoutubeID}_{Start_timestamp}_{End_timestamp}.mp4", colon = "-" }
[granularity.SVST]
[granularity.LVLT]
operation = "integrate"
from = "SVST"
min_clips = 1000  # more than any video has
"""
# Both are run as files in a process of their own, and say at its end what it took.
MEASURED = """
import atexit, json, os, sys
def say():
    status = open("/proc/self/status").read()
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024  # not getrusage: its peak is inherited
    times = os.times()
    sys.stderr.write("\\nTOOK " + json.dumps({"peak_bytes": peak, "cpu_s": sum(times[:4])}) + "\\n")
atexit.register(say)
"""
COMMAND = "sys.argv[0] = 'gex'\nfrom gex_pipeline.cli.main import main\nsys.exit(main())\n"
BARE = f"""
import duckdb
with duckdb.connect() as connection:
    connection.execute("SET memory_limit = '{LIMIT_BYTES}B'; SET enable_progress_bar = false")
    connection.execute("SET temp_directory = '" + sys.argv[3] + "'")
    print(connection.execute(
        "SELECT count(*) FROM read_parquet($new) ANTI JOIN read_parquet($known) "
        'USING ("YoutubeID", "Start_timestamp", "End_timestamp")', {{"new": sys.argv[1], "known": sys.argv[2]}}
    ).fetchone()[0])
"""


@dataclass(frozen=True)
class Taken:
    """What one process said, and what it took."""

    said: str
    seconds: float
    cpu_s: float
    peak_bytes: int
    load: float  # average of a minute, before it began


class WrongError(Exception):
    """A process failed, or said something it should not."""


def measured(name: str, code: str, arguments: list[str], folder: Path) -> Taken:
    """Run Python code in a fresh process and print a line of what it took.

    Raises:
        WrongError: it failed.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "PREFECT_HOME": str(folder / "prefect"),
    }
    script = folder / "scratch" / "measured.py"  # from -c, DuckDB would draw its progress
    script.write_text(MEASURED + code, encoding="utf-8")
    load, started = os.getloadavg()[0], time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        raise WrongError(f"{name} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    took = json.loads(done.stderr.rpartition("TOOK ")[2])
    taken = Taken(done.stdout, seconds, took["cpu_s"], took["peak_bytes"], load)
    figures = f"{seconds:7.2f} s {taken.cpu_s:7.2f} s of processor {taken.peak_bytes / 1e9:6.2f} GB"
    print(f"{name:<42} {figures}  load {load:.1f}", flush=True)
    return taken


def gex_run(name: str, folder: Path) -> Taken:
    """``gex run`` over the recipe in `folder`; the report is timed apart."""
    return measured(name, COMMAND, ["run", "recipe.toml", "--no-report"], folder)


def prepare(folder: Path, num_clips: int) -> None:
    """The recipe and the metadata in `folder`."""
    for name in ("metadata", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    generate(folder / "metadata" / "clips-0.parquet", num_clips * 2 // 5)


def add_new(folder: Path, num_clips: int) -> Path:
    """One more metadata file, of clips of videos that nobody has seen; returns it."""
    drawn, file = folder / "scratch" / "drawn.parquet", folder / "metadata" / "clips-1.parquet"
    generate(drawn, num_clips * 2 // 5)
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT * REPLACE ('new-' || \"YoutubeID\" AS \"YoutubeID\") FROM '{drawn}') TO '{file}'"
        )
    return file


def published(folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """The SHA-256 of ``dataset.json`` and the snapshots in it."""
    content = (folder / "output" / "dataset.json").read_bytes()
    return hashlib.sha256(content).hexdigest(), json.loads(content)["snapshots"]


def check_ingest(name: str, snapshot: dict[str, Any], num_new: int, num_known: int) -> None:
    """The account of ingest in a snapshot.

    Raises:
        WrongError: it is another one.
    """
    (account,) = [account for account in snapshot["accounts"] if account["stage"] == "ingest"]
    if (account["num_used"], account["num_known"]) != (num_new, num_known):
        found = f"{account['num_used']} new and {account['num_known']} known clips"
        raise WrongError(f"{name}: {found}, expected {num_new} and {num_known}")


def run_unchanged(name: str, sentence: str, folder: Path) -> None:
    """A run that has to say `sentence` and leave ``dataset.json`` as it is.

    Raises:
        WrongError: it does not.
    """
    before, _ = published(folder)
    taken = gex_run(name, folder)
    after, _ = published(folder)
    if sentence not in taken.said:
        raise WrongError(f"{name} did not say {sentence!r} but:\n{taken.said}")
    if after != before:
        raise WrongError(f"{name} changed dataset.json")


def bare(name: str, new: Path, folder: Path, expected: int) -> None:
    """DuckDB alone: how many rows of `new` are no known clips.

    Raises:
        WrongError: it finds another number.
    """
    known = folder / "output" / "tables" / "clips-000000.parquet"
    taken = measured(name, BARE, [str(new), str(known), str(folder / "scratch")], folder)
    if int(taken.said) != expected:
        raise WrongError(f"{name} finds {taken.said.strip()} new clips, expected {expected}")


def measure(folder: Path, num_clips: int, num_new: int) -> None:
    """All of it, in an empty folder.

    Raises:
        WrongError: a run did what it should not.
    """
    prepare(folder, num_clips)
    gex_run(f"first run: {num_clips:,} new clips", folder)
    _, (first,) = published(folder)
    check_ingest("first run", first, num_clips, 0)
    metadata = folder / "metadata" / "clips-0.parquet"
    run_unchanged("nothing changed", "nothing new: the inputs are those of the last run", folder)
    os.utime(metadata, (time.time(), time.time() + 1))
    run_unchanged("a touched file", "nothing new: no new clip", folder)
    run_unchanged("the touched file again", "nothing new: the inputs are those of the last run", folder)
    bare("DuckDB alone: every row against the known", metadata, folder, 0)
    new = add_new(folder, num_new)
    bare("DuckDB alone: new rows against the known", new, folder, num_new)
    gex_run(f"one more file: {num_new:,} new clips", folder)
    _, snapshots = published(folder)
    check_ingest("one more file", snapshots[-1], num_new, num_clips)
    if snapshots[:-1] != [first]:
        raise WrongError("one more file: the first snapshot is not what it was")
    run_unchanged("nothing changed since", "nothing new: the inputs are those of the last run", folder)
    measured("gex report", COMMAND, ["report", "output"], folder)


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=10_000_000, help="known clips (default 10,000,000)")
    parser.add_argument("--new", type=int, default=1000, help="clips in the new file (default 1000)")
    parser.add_argument("--scratch", type=Path, help="empty folder for all that is written (about 2 GB, kept)")
    arguments = parser.parse_args()
    # videos come in tens of fours: of other numbers the generated rows are not 2.5 a video
    if arguments.clips % 100 or arguments.new % 100:
        parser.error("numbers of clips have to be multiples of 100")
    try:
        with tempfile.TemporaryDirectory(prefix="gex-benchmark-") as folder:
            measure(arguments.scratch or Path(folder), arguments.clips, arguments.new)
    except WrongError as error:
        print(f"WRONG {error}")
        return 1
    print("dataset.json changed where it had to and nowhere else")
    return 0


if __name__ == "__main__":
    sys.exit(main())
