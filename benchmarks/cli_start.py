"""How long a command of ``gex`` takes to start, and which heavy packages it loads.

Compares ``python -m gex_pipeline.cli.main`` with a Python that does nothing, in the same run: ``--help``,
``plan`` of a small recipe with three granularities, ``status`` of an output that was begun. Medians of
several runs, one process each. Exits with 1 when a command fails, says something else than expected, or
loads torch, ray, vllm, transformers or prefect.
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
from pathlib import Path

HEAVY = ("torch", "ray", "vllm", "transformers", "sentence_transformers", "prefect", "sklearn", "matplotlib")
FORBIDDEN = ("torch", "ray", "vllm", "transformers", "sentence_transformers", "prefect")
NOTED = ("duckdb", "pyarrow", "pydantic", "numpy", "av", "PIL")
RECIPE = """
name = "start-up"
output = "output"
[source]
clips = "clips.jsonl"
media = { kind = "files", uri = "clips/{YoutubeID}_{Start_timestamp}.mp4" }
[granularity.SVST]
[granularity.LVLT]
operation = "integrate"
from = "SVST"
[granularity.IT]
operation = "compress_video"
from = "SVST"
"""
# Runs the command as `python -m` does and tells at the end which packages are loaded.
LISTING = """
import atexit, json, sys
names = json.loads(sys.argv.pop(1))
atexit.register(lambda: sys.stderr.write("\\nLOADED " + json.dumps([n for n in names if n in sys.modules]) + "\\n"))
sys.argv[0] = "gex"
from gex_pipeline.cli.main import main
sys.exit(main())
"""


def make_example(folder: Path) -> None:
    """A recipe with 20 clips of 5 videos, and an output in which a run was begun."""
    from gex_pipeline.recipe import load_recipe
    from gex_pipeline.run_state import begin, open_run

    rows = [
        {
            "YoutubeID": f"v{video}",
            "Start_timestamp": f"00:00:{clip * 10:02d}.000",
            "End_timestamp": f"00:00:{clip * 10 + 9:02d}.000",
            "Caption": "a clip",
        }
        for video in range(5)
        for clip in range(4)
    ]
    (folder / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.toml").write_text(RECIPE)
    begin(open_run(load_recipe(folder / "recipe.toml")))


def timed(command: list[str], folder: Path, expected: str) -> float:
    """Seconds of one process.

    Raises:
        SystemExit: it failed or did not say what is expected.
    """
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment())
    seconds = time.perf_counter() - started
    if done.returncode != 0 or expected not in done.stdout:
        raise SystemExit(f"WRONG {command[1:]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return seconds


def loaded(arguments: list[str], folder: Path) -> list[str]:
    """Which of the packages a command has loaded when it ends."""
    command = [sys.executable, "-c", LISTING, json.dumps([*HEAVY, *NOTED]), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment())
    return json.loads(done.stderr.rpartition("LOADED ")[2])


def environment() -> dict[str, str]:
    """This process's environment, with the package beside this file importable."""
    root = str(Path(__file__).resolve().parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="processes of each command (default 15)")
    arguments = parser.parse_args()
    commands = {
        "--help": (["--help"], "gex demo"),
        "plan": (["plan", "recipe.toml"], "20 rows"),
        "status": (["status", "output"], "not finished"),
    }
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="gex-benchmark-") as scratch:
        folder = Path(scratch)
        make_example(folder)
        seconds: dict[str, list[float]] = {"python -c pass": [], **{name: [] for name in commands}}
        for _ in range(arguments.repeats):
            seconds["python -c pass"].append(timed([sys.executable, "-c", "pass"], folder, ""))
            for name, (words, expected) in commands.items():
                command = [sys.executable, "-m", "gex_pipeline.cli.main", *words]
                seconds[name].append(timed(command, folder, expected))
        for name, values in seconds.items():
            print(f"{name:<16} median {statistics.median(values):6.3f} s   best {min(values):6.3f} s")
            if name in commands:
                packages = loaded(commands[name][0], folder)
                print(f"{'':<16} loads {', '.join(packages) or 'none of the larger packages'}")
                wrong += (unwanted := [package for package in packages if package in FORBIDDEN]) != []
                if unwanted:
                    print(f"WRONG {name} loads {', '.join(unwanted)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
