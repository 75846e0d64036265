"""Kills real runs at random moments, runs again until they end, and compares with a run nobody disturbed.

Every kill has an output of its own: `gex run` in its own session over a drawn corpus, SIGKILL at a seeded moment
within the undisturbed run's time, to the driver's whole process group or to one Ray worker, ffmpeg or raylet of that
run; then, at once, the same command until it ends with 0. What is published is read with `tarfile` and `json` only.
Prints lost, duplicated and differing samples and tars whose SHA-256 differs; exits with 1 unless all are 0, with
no tar that `dataset.json` does not list, no temporary file and no lock left. A run that does not end counts as stuck.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("driver", "worker", "ffmpeg", "raylet")
END_S = 240  # a run of seconds that has not ended after this is stuck
ORPHANS_S = 20
_RECIPE = """
name = "kill test"
output = "output"
[source]
clips = "{corpus}/clips.jsonl"
[source.media]
kind = "files"
uri = "{corpus}/clips/{{YoutubeID}}_{{Start_timestamp}}_{{End_timestamp}}.mp4"
colon = "-"
[shards]
max_samples = 3
[scores]
rouge = true
sentence_model = false
bertscore_model = false
[granularity.SVST]
pack = true
[granularity.LVLT]
operation = "integrate"
from = "SVST"
[granularity.LVST]
operation = "compress_text"
from = "LVLT"
summarizer = {{ backend = "extractive" }}
[granularity.IT]
operation = "compress_video"
from = "SVST"
"""


@dataclass(frozen=True)
class Place:
    """Where corpus, outputs and the scratch of the runs lie."""

    folder: Path

    def recipe(self, name: str) -> Path:
        """A recipe with an output of its own."""
        path = self.folder / name / "recipe.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_RECIPE.format(corpus=self.folder / "corpus"), encoding="utf-8")
        return path


@dataclass(frozen=True)
class Difference:
    """What a killed and repeated run published, against the undisturbed one."""

    lost: int
    duplicated: int
    differing: int
    tars: tuple[str, ...]  # whose bytes differ, that are missing, or that nobody listed
    leftovers: tuple[str, ...]

    @property
    def is_none(self) -> bool:
        """Whether there is no difference at all."""
        return not (self.lost or self.duplicated or self.differing or self.tars or self.leftovers)


@contextmanager
def place(num_sources: int) -> Iterator[Place]:
    """A folder with a drawn corpus; its name is short, since Ray's sockets lie below it."""
    from gex_pipeline.demo import CorpusSettings, draw_corpus

    folder = Path(tempfile.mkdtemp(prefix="gexk-"))
    try:
        draw_corpus(folder / "corpus", CorpusSettings(num_sources=num_sources, faults=False, workers=1))
        yield Place(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def start(where: Place, recipe: Path) -> subprocess.Popen[bytes]:
    """`gex run` in a session of its own; its words go to `log` beside the recipe."""
    scratch = where.folder / "t"
    scratch.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"} | {
        "PREFECT_HOME": str(where.folder / "prefect"),  # one for all runs: its database is made once
        "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
        "RAY_TMPDIR": str(scratch),
        "TMPDIR": str(scratch),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "gex_pipeline.cli.main", "run", str(recipe), "--no-report"]
    with (recipe.parent / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)


def processes(session: int) -> dict[int, str]:
    """The living processes of a session and their command lines; a worker that Ray reparented is among them."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    return found


def victims(session: int, kind: str) -> list[int]:
    """The processes of a run that a kind of kill may take."""
    found = []
    for pid, command in processes(session).items():
        program = command.split(" ")[0]
        is_worker = program.startswith("ray::") and "Agent" not in program
        name = program.rsplit("/", 1)[-1]
        if is_worker if kind == "worker" else name.startswith(kind):
            found.append(pid)
    return sorted(found)


def kill(process: subprocess.Popen[bytes], kind: str, draw: random.Random) -> bool:
    """Kill what `kind` names as soon as there is such a process; False when the run ended first."""
    while process.poll() is None:
        if kind == "driver":
            os.killpg(process.pid, signal.SIGKILL)
            return True
        if found := victims(process.pid, kind):
            try:
                os.kill(draw.choice(found), signal.SIGKILL)
            except ProcessLookupError:
                continue
            return True
        time.sleep(0.01)
    return False


def end(process: subprocess.Popen[bytes]) -> int | None:
    """Wait for a run's end; its exit code, None when it is stuck (it is killed then)."""
    try:
        return process.wait(END_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


def clear(session: int) -> list[str]:
    """Wait until nothing of a session lives; what lives on is killed and returned."""
    deadline = time.monotonic() + ORPHANS_S
    while (left := processes(session)) and time.monotonic() < deadline:
        time.sleep(0.2)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return sorted(left.values())


def samples_of(output: Path) -> Counter[tuple[str, str, str]]:
    """(granularity, key, digest of its members) of everything that `dataset.json` lists."""
    found: Counter[tuple[str, str, str]] = Counter()
    for name, path in _listed(output):
        members: dict[str, list[str]] = {}
        with tarfile.open(output / path) as archive:
            for member in archive:
                stream = archive.extractfile(member)
                digest = hashlib.sha256(stream.read() if stream else b"").hexdigest()
                members.setdefault(member.name.partition(".")[0], []).append(f"{member.name} {digest}")
        found.update((name, key, "\n".join(sorted(lines))) for key, lines in members.items())
    return found


def _listed(output: Path) -> list[tuple[str, str]]:
    manifest = json.loads((output / "dataset.json").read_text(encoding="utf-8"))
    return [
        (name, shard["path"])
        for snapshot in manifest["snapshots"]
        for name, entry in snapshot["granularities"].items()
        for shard in entry["shards"]
    ]


def compare(output: Path, reference: Path) -> Difference:
    """Count what was lost, doubled or changed, and name tars and temporary files that should not be."""
    ours, wanted = samples_of(output), samples_of(reference)
    our_keys, keys = (Counter((name, key) for name, key, _ in found.elements()) for found in (ours, wanted))
    sums, wanted_sums = (
        {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.tar")}
        for folder in (output, reference)
    )
    tars = {path for path in sums.keys() | wanted_sums.keys() if sums.get(path) != wanted_sums.get(path)}
    tars |= sums.keys() - {path for _, path in _listed(output)}
    left = [path for pattern in ("*.part", "run.lock") for path in output.rglob(pattern)]
    return Difference(
        lost=len(keys.keys() - our_keys.keys()),
        duplicated=sum(count - 1 for count in our_keys.values()),
        differing=len([1 for name, key, digest in ours if (name, key, digest) not in wanted]),
        tars=tuple(sorted(tars)),
        leftovers=tuple(sorted(str(path.relative_to(output)) for path in left)),
    )


def undisturbed(where: Place, names: tuple[str, ...] = ("first", "reference")) -> tuple[Path, float]:
    """The output of the last of these runs, and its seconds; the first of all makes Prefect's database as well."""
    seconds = 0.0
    for name in names:
        started = time.monotonic()
        process = start(where, where.recipe(name))
        code = end(process)
        seconds = time.monotonic() - started
        clear(process.pid)
        if code != 0:
            raise SystemExit(f"the undisturbed run ended with {code}:\n{(where.folder / name / 'log').read_text()}")
    return where.folder / names[-1] / "output", seconds


def kill_and_repeat(where: Place, name: str, kind: str, moment_s: float, draw: random.Random) -> list[str]:
    """One run, killed and repeated until it ends with 0; a line a run: what was hit, how each ended."""
    recipe = where.recipe(name)
    process = start(where, recipe)
    time.sleep(moment_s)
    hit = kill(process, kind, draw)
    said = [f"{'hit' if hit else 'run ended first'}, ended with {(code := end(process))}"]
    sessions = [process.pid]
    for _ in range(3):
        if code == 0:
            break
        process = start(where, recipe)
        sessions.append(process.pid)
        said.append(f"repeated, ended with {(code := end(process))}")
    for session in sessions:
        said += [f"had to be killed: {command[:60]}" for command in clear(session)]
    if code != 0 or "None" in " ".join(said):
        said.append("STUCK or failing: " + (recipe.parent / "log").read_text(errors="replace")[-1500:])
    return said


def main() -> int:
    """Parse, kill, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="runs to kill (default 20)")
    parser.add_argument("--sources", type=int, default=8, help="drawn source videos (default 8)")
    parser.add_argument("--seed", type=int, default=7, help="seed of moments and victims (default 7)")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    total, bad = Counter[str](), 0
    with place(arguments.sources) as where:
        reference, whole_s = undisturbed(where)
        num_samples = samples_of(reference).total()
        print(f"undisturbed: {whole_s:.1f} s, {len(_listed(reference))} tars, {num_samples} samples", flush=True)
        for number in range(arguments.kills):
            kind, moment_s = KINDS[number % len(KINDS)], draw.uniform(0, whole_s)
            said = kill_and_repeat(where, f"k{number}", kind, moment_s, draw)
            print(f"{number:3d} {kind:7s} at {moment_s:5.1f} s: {'; '.join(said)}", flush=True)
            output = where.folder / f"k{number}" / "output"
            stuck = any(line.startswith("STUCK") for line in said)
            if not (output / "dataset.json").exists():
                total.update(lost=num_samples)
                bad += 1
                continue
            found = compare(output, reference)
            total.update(lost=found.lost, duplicated=found.duplicated, differing=found.differing)
            bad += stuck or not found.is_none
            if not found.is_none:
                print(f"    WRONG {found}", flush=True)
            shutil.rmtree(output)
    print(f"lost {total['lost']}, duplicated {total['duplicated']}, differing {total['differing']} samples")
    print(f"{arguments.kills} kills, {bad} outputs with anything wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
