"""A cluster as it is outside of tests: `ray start`, token authentication, workers that lack this package, jobs."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from gex_pipeline.cli.main import main
from gex_pipeline.errors import GexError
from gex_pipeline.ray_jobs import ray_session
from gex_pipeline.ray_submit import sent_recipe
from gex_pipeline.recipe import RaySettings
from tests.end_to_end.scheduling import daemon, free_port
from tests.making_runs import clip_row, write_jsonl
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("aiohttp_cors") is None, reason="needs ray[default] (the extra 'cluster')"
)


@dataclass(frozen=True)
class Head:
    address: str  # of Ray
    dashboard: str
    metrics: str
    environment: dict[str, str]  # of who knows the token


@pytest.fixture(scope="module")
def head():
    """`ray start --head` in another folder, with a token; a package that shadows this one there cannot be imported."""
    with tempfile.TemporaryDirectory(prefix="gexh-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "token").write_text(secrets.token_hex(32))
        (folder / "shadow" / "gex_pipeline").mkdir(parents=True)
        (folder / "shadow" / "gex_pipeline" / "__init__.py").write_text("raise ImportError('of the cluster')\n")
        environment = {
            **{key: value for key, value in os.environ.items() if key != "PREFECT_API_URL"},
            "PREFECT_HOME": str(folder / "prefect"),
            "PYTHONPATH": str(ROOT),
            # A job starts `python`, as every Ray job does: the cluster's, which is this one.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
            "RAY_metrics_report_interval_ms": "500",
            "TMPDIR": str(folder),
        }
        names = (
            *("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port"),
            "metrics-export-port",
        )
        ports = {name: free_port() for name in names}
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            *("--num-cpus", "3", "--object-store-memory", "100000000", "--include-dashboard", "true"),
            *("--node-ip-address", "127.0.0.1", "--dashboard-host", "127.0.0.1", "--temp-dir", name),
            *(word for option, port in ports.items() for word in (f"--{option}", str(port))),
        ]
        with daemon("head", command, {**environment, "PYTHONPATH": str(folder / "shadow")}, folder):
            pages = [f"http://127.0.0.1:{ports[name]}" for name in ("dashboard-port", "metrics-export-port")]
            made = Head(f"127.0.0.1:{ports['port']}", *pages, environment)
            wait_for(lambda: jobs_of(made) == [], 60, "a cluster that takes jobs")
            yield made


def jobs_of(head: Head) -> list | None:
    """What the cluster says of its jobs; None while it does not answer."""
    program = (
        "import sys; from ray.job_submission import JobSubmissionClient as C\n"
        "import json; print(json.dumps([j.submission_id for j in C(sys.argv[1]).list_jobs() if j.submission_id]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, head.dashboard],
        env=head.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return json.loads(done.stdout) if done.returncode == 0 else None


BUILDS = """
import json, sys, time
from pathlib import Path
from urllib.request import urlopen
from ray.util.state import list_tasks
from gex_pipeline.errors import GexError
from gex_pipeline.ray_jobs import ray_session, run_shards
from gex_pipeline.recipe import RaySettings
from gex_pipeline.run_state import begin, open_run
from tests.making_runs import plan, recipe_of

media = {"media": {"kind": "column", "column": "file", "root": "clips"}}
run = begin(open_run(recipe_of(Path(sys.argv[1]), media, {"SVST": {"pack": True}}, shards={"max_samples": 1})))
job, shards = plan(run, "SVST")
settings = RaySettings(address=sys.argv[2], cpus_a_shard=0.5, memory_a_shard_bytes=123_000_000, max_shards=1)
built = []
with ray_session(settings):
    failures = run_shards(job, shards, settings, built.append)
    for _ in range(40):  # Ray hears of its tasks a moment later
        tasks = list_tasks(address=sys.argv[3], filters=[("name", "=", "Map(Builder)")], detail=True)
        if len(tasks) == len(shards):
            break
        time.sleep(0.25)
    for _ in range(40):
        lines = urlopen(sys.argv[4] + "/metrics").read().decode().splitlines()
        counted = {line.split("{")[0]: float(line.split()[-1]) for line in lines if line.startswith("ray_gex_")}
        lost = [line for line in lines if line.startswith("ray_gex_lost_parents_total{")]
        if counted.get("ray_gex_samples_total") == 3 and lost:
            break
        time.sleep(0.25)
    try:
        run_shards(job, shards, settings.model_copy(update={"memory_a_shard_bytes": 1 << 50}), built.append)
    except GexError as error:
        refused = str(error)
ends = [Path(run.layout.receipt("SVST", row["shard"])).stat().st_mtime for row in built]
spans = sorted((end - row["seconds"], end) for row, end in zip(built, ends))
asked = [task.required_resources for task in tasks]
print(json.dumps([len(failures), [row["num_samples"] for row in built], asked, spans, refused, counted, lost]))
"""


def test_workers_of_a_cluster_with_a_token_get_this_package_and_what_a_shard_needs(head, small_clips, tmp_path):
    """The head's own package raises when it is imported, and its folder is another one. One clip has no file."""
    (tmp_path / "clips").symlink_to(small_clips)
    files = ["a-0.mp4", "a-1.mp4", "a-2.mp4", "nowhere.mp4"]
    write_jsonl(tmp_path / "clips.jsonl", [clip_row("a", n, n + 0.48, file=file) for n, file in enumerate(files)])
    command = [sys.executable, "-c", BUILDS, str(tmp_path), head.address, head.dashboard, head.metrics]
    done = subprocess.run(
        command, cwd=ROOT, env=head.environment, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    num_failures, built, asked, spans, refused, counted, lost = json.loads(done.stdout.splitlines()[-1])
    assert (num_failures, sorted(built)) == (0, [0, 1, 1, 1])
    assert asked == [{"CPU": 0.5, "memory": 123_000_000.0}] * 4
    assert all(end <= start + 0.05 for (_, end), (start, _) in pairwise(spans)), spans  # one after the other
    assert (counted["ray_gex_shards_built_total"], counted["ray_gex_samples_total"]) == (4, 3)
    assert counted["ray_gex_bytes_total"] == sum(path.stat().st_size for path in tmp_path.glob("output/SVST/*.tar"))
    assert counted["ray_gex_bytes_read_total"] == sum((small_clips / file).stat().st_size for file in files[:3])
    (line,) = lost
    assert 'reason="media_missing"' in line
    assert line.endswith(" 1.0")
    assert refused.startswith("no node of the Ray cluster has 0.5 CPUs and 1125899906842624 bytes of memory")


def recipe_over(clips: Path, folder: Path) -> Path:
    write_jsonl(folder / "clips.jsonl", [clip_row("a", n, n + 0.48, file=f"a-{n}.mp4") for n in range(4)])
    recipe = folder / "recipe.toml"
    recipe.write_text(
        f'name = "sent"\noutput = "{folder}/output"\n[source]\nclips = "{folder}/clips.jsonl"\n'
        f'media = {{ kind = "column", column = "file", root = "{clips}" }}\n'
        '[granularity.SVST]\n[granularity.LVLT]\noperation = "integrate"\nfrom = "SVST"\n'
    )
    return recipe


def sending(head: Head, recipe: Path, **more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gex_pipeline.cli.main", "run", str(recipe), "--no-report", "--submit"]
    return subprocess.Popen(
        [*command, head.dashboard],
        cwd=ROOT,
        env={**head.environment, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_run_that_is_sent_to_a_cluster_is_followed_by_whoever_asks_for_it_again(head, small_clips, tmp_path):
    """The recipe says `local`, and the job uses the cluster it is on. The first client is gone before it ends."""
    recipe = recipe_over(small_clips, tmp_path)
    with sending(head, recipe) as first:
        assert first.stdout is not None
        started = first.stdout.readline()
        while "is started" not in started:
            assert first.poll() is None, started
            started = first.stdout.readline()
        first.kill()
    with sending(head, recipe) as second:
        said, _ = second.communicate(timeout=120)
    assert second.returncode == 0, said
    name = started.split()[1]
    assert f"job {name} is running already; following it" in said
    assert "LVLT" in said
    assert (tmp_path / "output" / "dataset.json").exists()
    assert jobs_of(head) == [name]


def test_a_job_that_fails_ends_the_command_with_its_code_and_words(head, tmp_path):
    recipe = recipe_over(tmp_path, tmp_path)
    (tmp_path / "clips.jsonl").unlink()
    with sending(head, recipe) as process:
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"gex: no file matches '{tmp_path}/clips.jsonl'" in said


def test_without_the_token_nothing_is_sent_and_the_variables_are_named(head, small_clips, tmp_path):
    with sending(head, recipe_over(small_clips, tmp_path), RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN_PATH="") as process:
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "wants a token: set RAY_AUTH_MODE=token" in said


def test_a_wrong_recipe_is_refused_before_anything_is_sent(tmp_path, capsys):
    (tmp_path / "recipe.toml").write_text("nmae = 'x'\n")
    assert main(["run", str(tmp_path / "recipe.toml"), "--submit", "http://127.0.0.1:9"]) == 2
    assert "no [granularity.NAME] table" in capsys.readouterr().err


@pytest.mark.parametrize(("named", "is_sent"), [("a/hub-id", True), ("{folder}/writer", True), ("writer", False)])
def test_a_recipe_is_sent_unless_it_names_a_file_by_a_path_from_its_folder(tmp_path, named, is_sent):
    """One whose model lies beside it was sent alone, and the model was not found in the job's folder."""
    recipe = recipe_over(tmp_path, tmp_path)
    (tmp_path / "writer").mkdir()
    with recipe.open("a") as file:
        file.write('[granularity.LVST]\noperation = "compress_text"\nfrom = "LVLT"\n')
        file.write(f'summarizer = {{ backend = "vllm", model = "{named.format(folder=tmp_path)}" }}\n')
    assert (sent_recipe(str(recipe)) is not None) == is_sent


def test_ray_client_is_refused_with_the_ways_that_work():
    refused = pytest.raises(GexError, match=r"does not run through Ray Client .* --submit http://HOST:8265")
    with refused, ray_session(RaySettings(address="ray://head:10001")):
        raise AssertionError("unreachable")
