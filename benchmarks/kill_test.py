"""Kills real runs at random moments, runs again until they end, and compares with a run nobody disturbed.

Every kill has an output of its own: `gex run` in its own session over a drawn corpus, SIGKILL at a seeded moment
within the undisturbed run's time, to the driver's whole process group or to one Ray worker, one ffmpeg, the raylet, the
raylet of the second of two nodes while that node builds, or the vLLM engine (`--vllm`); then, at once, the same command
until it ends with 0. A moment after the last process of its kind is drawn again, earlier. What is published is read
with `tarfile` and `json` only. Prints lost, duplicated and differing samples and tars whose SHA-256 differs; exits with
1 unless all are 0, with no tar that `dataset.json` does not list, no temporary file, no lock and no process left, and
every run that was not killed itself ended with 0 or 75. A run that does not end counts as stuck.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # when this file is run as a script

from benchmarks.process_table import Process, processes
from benchmarks.same_output import Difference, compare, listed, samples_of

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("driver", "worker", "ffmpeg", "raylet", "node")
ENGINE = "engine"
END_S = 300  # a run of seconds that has not ended after this is stuck
ORPHANS_S = 20
MAX_RUNS = 4
RIGHT_ENDS = (0, 75)
EXTRACTIVE = 'backend = "extractive"'
TINY_LM = f'backend = "vllm", model = "{ROOT}/tests/tiny_lm/model", max_model_len = 1024, max_attempts = 1'
SUMMARIZERS = {"plain": EXTRACTIVE, "vllm": TINY_LM}
_RECIPE = """
name = "kill test"
output = "output"
[source]
clips = "{corpus}/clips.jsonl"
[source.media]
kind = "files"
uri = "{corpus}/clips/{{YoutubeID}}_{{Start_timestamp}}_{{End_timestamp}}.mp4"
colon = "-"
[ray]
address = "{address}"
[video]
force_encode = true
preset = "ultrafast"
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
summarizer = {{ {summarizer} }}
[granularity.IT]
operation = "compress_video"
from = "SVST"
"""


@dataclass(frozen=True)
class Place:
    """Where corpus, outputs and the scratch of the runs lie."""

    folder: Path

    @property
    def scratch(self) -> Path:
        """TMPDIR of all runs, and of the cluster."""
        return self.folder / "t"

    @property
    def environment(self) -> dict[str, str]:
        """What runs and clusters are started with."""
        self.scratch.mkdir(exist_ok=True)
        return {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"} | {
            "PREFECT_HOME": str(self.folder / "prefect"),  # one for all runs: its database is made once
            "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "RAY_AUTH_MODE": "disabled",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_TMPDIR": str(self.scratch),
            "TMPDIR": str(self.scratch),
            "OMP_NUM_THREADS": "1",
        }

    def recipe(self, name: str, summarizer: str = EXTRACTIVE, address: str = "local") -> Path:
        """A recipe with an output of its own."""
        path = self.folder / name / "recipe.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = _RECIPE.format(corpus=self.folder / "corpus", summarizer=summarizer, address=address)
        path.write_text(text, encoding="utf-8")
        return path


@dataclass
class Story:
    """One kill and what came after it."""

    kind: str
    hit_s: float | None = None  # after the run's start; None: it ended first
    first_run_s: float = 0.0
    codes: list[int | None] = field(default_factory=list)  # of the killed run and of those after it; None: stuck
    survivors: list[str] = field(default_factory=list)  # processes that had to be killed
    log_tail: str = ""

    @property
    def is_right(self) -> bool:
        """Whether it was hit, every run ended as the guide says, the last one well, and nothing lives on."""
        killed, after = self.codes[:1], self.codes[1:]
        allowed = (-signal.SIGKILL,) if self.kind == "driver" else RIGHT_ENDS
        ended = all(code in allowed for code in killed) and all(code in RIGHT_ENDS for code in after)
        return self.hit_s is not None and ended and self.codes[-1] == 0 and not self.survivors

    def __str__(self) -> str:
        hit = f"hit at {self.hit_s:.1f} s" if self.hit_s is not None else "ended before it could be hit"
        words = f"{self.kind:7s} {hit}, ended with {', '.join(str(code) for code in self.codes)}"
        lines = [words, *(f"    had to be killed: {command[:100]}" for command in self.survivors)]
        return "\n".join(lines if self.is_right else [*lines, f"    NOT RIGHT: {self.log_tail}"])


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


@dataclass(frozen=True)
class TwoNodes:
    """A cluster whose second node may be killed."""

    session: int
    address: str
    raylets: tuple[int, int]


@contextmanager
def two_nodes(where: Place) -> Iterator[TwoNodes]:
    """A Ray cluster for the time of a story."""
    command = [sys.executable, str(ROOT / "benchmarks" / "two_nodes.py")]
    pipe = subprocess.PIPE
    with (
        (where.folder / "cluster.log").open("ab") as log,
        subprocess.Popen(
            command, env=where.environment, stdin=pipe, stdout=pipe, stderr=log, start_new_session=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            if not said:
                raise SystemExit(f"no cluster:\n{(where.folder / 'cluster.log').read_text()[-2000:]}")
            found = json.loads(said)
            yield TwoNodes(process.pid, found["address"], tuple(found["raylets"]))
        finally:
            process.communicate()
            clear(where, [process.pid])


def start(where: Place, recipe: Path) -> subprocess.Popen[bytes]:
    """`gex run` in a session of its own; its words go to `log` beside the recipe."""
    command = [sys.executable, "-m", "gex_pipeline.cli.main", "run", str(recipe), "--no-report"]
    with (recipe.parent / "log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=ROOT, env=where.environment, stdout=log, stderr=log, start_new_session=True
        )  # fmt: skip


def victims(where: Place, session: int, kind: str) -> list[int]:
    """The processes of a run that a kind of kill may take."""
    living = processes()
    if kind == "ffmpeg":  # each in a session of its own, with its files below this place
        return [one.pid for one in living if one.program.startswith("ffmpeg") and str(where.folder) in one.command]
    ours = [one for one in living if one.session == session]
    if kind == "worker":
        return [one.pid for one in ours if one.is_ray_worker]
    return [one.pid for one in ours if one.program.startswith("VLLM::Engine" if kind == ENGINE else kind)]


def working_node(cluster: TwoNodes) -> list[int]:
    """The second raylet, while one of its workers builds a shard."""
    second = cluster.raylets[1]
    busy = [one for one in processes() if one.parent == second and one.program.startswith("ray::Map")]
    return [second] if busy else []


def kill(process: subprocess.Popen[bytes], find: Callable[[], list[int]], draw: random.Random) -> bool:
    """Kill one of what `find` gives as soon as it gives any; False when the run ended first."""
    while process.poll() is None:
        if found := find():
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


def clear(where: Place, sessions: list[int]) -> list[str]:
    """Wait until nothing of these sessions lives and no ffmpeg; what lives on is killed and returned."""

    def left() -> list[Process]:
        orphans = victims(where, 0, "ffmpeg")
        return [one for one in processes() if one.session in sessions or one.pid in orphans]

    deadline = time.monotonic() + ORPHANS_S
    while (found := left()) and time.monotonic() < deadline:
        time.sleep(0.2)
    for one in found:
        try:
            os.kill(one.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return sorted(one.command for one in found)


def label_of(kind: str) -> str:
    """Which summarizer the runs of a kind of kill have."""
    return "vllm" if kind == ENGINE else "plain"


def undisturbed(where: Place, names: tuple[str, ...], summarizer: str = EXTRACTIVE) -> tuple[Path, float]:
    """The output of the last of these runs, and its seconds; the first of all makes Prefect's database as well."""
    seconds = 0.0
    for name in names:
        started_s = time.monotonic()
        process = start(where, where.recipe(name, summarizer))
        code = end(process)
        seconds = time.monotonic() - started_s
        clear(where, [process.pid])
        if code != 0:
            raise SystemExit(f"the undisturbed run ended with {code}:\n{(where.folder / name / 'log').read_text()}")
    return where.folder / names[-1] / "output", seconds


def kill_and_repeat(where: Place, name: str, kind: str, moment_s: float, draw: random.Random) -> Story:
    """One run, killed at a moment and repeated until it ends with 0."""
    story, sessions = Story(kind), []
    with two_nodes(where) if kind == "node" else nullcontext() as cluster:
        recipe = where.recipe(name, SUMMARIZERS[label_of(kind)], cluster.address if cluster else "local")
        started_s = time.monotonic()
        process = start(where, recipe)
        session = process.pid
        time.sleep(moment_s)
        if kind == "driver":
            is_hit = process.poll() is None
            if is_hit:
                os.killpg(session, signal.SIGKILL)
        else:
            is_hit = kill(process, lambda: working_node(cluster) if cluster else victims(where, session, kind), draw)
        story.hit_s = time.monotonic() - started_s if is_hit else None
        while True:
            sessions.append(process.pid)
            story.codes.append(end(process))
            story.first_run_s = story.first_run_s or time.monotonic() - started_s
            if story.codes[-1] == 0 or len(story.codes) == MAX_RUNS:
                break
            process = start(where, recipe)
        story.survivors = clear(where, sessions)
    story.log_tail = (recipe.parent / "log").read_text(errors="replace")[-2500:]
    return story


def until_hit(where: Place, name: str, kind: str, whole_s: float, draw: random.Random) -> tuple[Story, float]:
    """A story with a kill in it, and how long a run takes at present; other work on the machine changes that.

    A moment after the last process of its kind is drawn again, earlier.
    """
    moment_s = draw.uniform(0, whole_s)
    while True:
        story = kill_and_repeat(where, name, kind, moment_s, draw)
        if story.codes[0] == 0:
            whole_s = story.first_run_s
        if story.hit_s is not None or moment_s < 1:
            return story, whole_s
        shutil.rmtree(where.folder / name)
        moment_s = draw.uniform(0, min(moment_s, whole_s))


@dataclass
class Tally:
    """What came of the kills of one kind."""

    stories: list[Story] = field(default_factory=list)
    found: list[Difference] = field(default_factory=list)

    @property
    def num_wrong(self) -> int:
        """Kills after which anything was not as it should be."""
        return sum(not (s.is_right and f.is_none) for s, f in zip(self.stories, self.found, strict=True))

    def line(self, kind: str) -> str:
        """One row of the table."""
        hits = [story.hit_s for story in self.stories if story.hit_s is not None]
        again = sum(len(story.codes) > 1 for story in self.stories)
        sums = [sum(getattr(one, name) for one in self.found) for name in ("lost", "duplicated", "differing")]
        moments = f"{min(hits):.1f}-{statistics.median(hits):.1f}-{max(hits):.1f}" if hits else "-"
        counts = f"{len(hits):5d} {again:9d} {sums[0]:5d} {sums[1]:10d} {sums[2]:9d} {self.num_wrong:5d}"
        return f"{kind:7s} {counts}  {moments}"


def show(tallies: dict[str, Tally]) -> int:
    """Print the table and its sums; 1 when anything is wrong."""
    print(f"{'kind':7s} kills run again  lost duplicated differing wrong  hit at s, first-median-last")
    for kind, tally in tallies.items():
        print(tally.line(kind))
    found = [one for tally in tallies.values() for one in tally.found]
    lost, duplicated, differing = (sum(getattr(one, n) for one in found) for n in ("lost", "duplicated", "differing"))
    wrong = sum(tally.num_wrong for tally in tallies.values())
    print(f"lost {lost}, duplicated {duplicated}, differing {differing} samples")
    print(f"{len(found)} kills, {wrong} outputs with anything wrong")
    return 1 if wrong else 0


def main() -> int:
    """Parse, kill, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="runs to kill (default 20)")
    parser.add_argument("--sources", type=int, default=8, help="drawn source videos (default 8)")
    parser.add_argument("--seed", type=int, default=7, help="seed of moments and victims (default 7)")
    parser.add_argument(
        "--only", choices=(*KINDS, ENGINE), action="append", help="kinds to kill (default all but engine)"
    )
    parser.add_argument("--vllm", action="store_true", help="kill the vLLM engine, too; its runs take a minute each")
    arguments = parser.parse_args()
    kinds = list(arguments.only or KINDS) + (
        [ENGINE] if arguments.vllm and ENGINE not in (arguments.only or ()) else []
    )
    draw = random.Random(arguments.seed)
    tallies = {kind: Tally() for kind in kinds}
    with place(arguments.sources) as where:
        references = {}
        for label in {label_of(kind): None for kind in kinds}:
            references[label] = undisturbed(where, (f"first-{label}", label), SUMMARIZERS[label])
            output, whole_s = references[label]
            num_samples = samples_of(output).total()
            print(
                f"undisturbed {label}: {whole_s:.1f} s, {len(listed(output))} tars, {num_samples} samples", flush=True
            )
        for number in range(arguments.kills):
            kind = kinds[number % len(kinds)]
            reference, whole_s = references[label_of(kind)]
            story, whole_s = until_hit(where, f"k{number}", kind, whole_s, draw)
            references[label_of(kind)] = reference, whole_s
            found = compare(where.folder / f"k{number}" / "output", reference)
            tallies[kind].stories.append(story)
            tallies[kind].found.append(found)
            print(f"{number:3d} {story}" + ("" if found.is_none else f"\n    WRONG {found}"), flush=True)
            shutil.rmtree(where.folder / f"k{number}")
    return show(tallies)


if __name__ == "__main__":
    sys.exit(main())
