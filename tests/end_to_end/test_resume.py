"""A run that is killed for real, and the one after it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.end_to_end.paper import paper_recipe
from tests.end_to_end.running import expand_to, fingerprint, sums, write_recipe
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]


def processes_of(ray_folder: str) -> list[int]:
    """Processes whose command line names a Ray session below this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and ray_folder.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def killed(running, corpus, clip_model, tmp_path_factory):
    """A run in a process of its own, killed with its whole group when the first LVLT shard had its receipt."""
    from prefect.settings import PREFECT_API_URL

    folder = tmp_path_factory.mktemp("killed")
    recipe = write_recipe(folder, paper_recipe(corpus, clip_model))
    ray_folder = tempfile.mkdtemp(prefix="gexk-")
    environment = {
        **os.environ,
        "PREFECT_API_URL": str(PREFECT_API_URL.value()),
        "RAY_TMPDIR": ray_folder,
        "TMPDIR": ray_folder,  # what a killed process leaves there goes with it
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    command = [sys.executable, "-m", "gex_pipeline.cli.main", "run", str(recipe)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )  # fmt: skip
    try:
        wait_for(
            lambda: process.poll() is not None or list((folder / "output/LVLT").glob("LVLT-*.parquet")), seconds=120
        )
        assert process.poll() is None, (folder / "log").read_text()
        ray_processes = processes_of(ray_folder)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    yield recipe, ray_folder, ray_processes
    for left in processes_of(ray_folder):
        os.kill(left, signal.SIGKILL)
    shutil.rmtree(ray_folder, ignore_errors=True)


def test_ray_goes_away_when_the_run_that_started_it_is_killed(killed):
    _, ray_folder, before = killed
    assert before, "the run had no Ray of its own"
    wait_for(lambda: not processes_of(ray_folder), seconds=60)


def test_a_killed_run_goes_on_to_the_same_bytes(killed, paper_output):
    recipe, _, _ = killed
    output = recipe.parent / "output"
    assert not (output / "dataset.json").exists()
    receipts = list(output.glob("LVLT/LVLT-*.parquet"))
    assert receipts
    finished = {path: entry for path, entry in fingerprint(output).items() if path.startswith(("SVST/", "LVLT/"))}
    finished = {p: e for p, e in finished.items() if (output / p).with_suffix(".parquet").exists()}
    # What a process that dies between writing and renaming leaves behind.
    (output / "LVLT/.LVLT-000001.tar.0badcafe.part").write_bytes(b"half a shard")

    resumed = expand_to(recipe)

    now = fingerprint(output)
    assert {path: now[path] for path in finished} == finished, "finished shards were built again"
    assert sums(output) == sums(paper_output.folder)
    published = {shard["path"] for name in resumed.granularities for shard in resumed.shards(name)}
    assert set(sums(output)) == published
    assert not list(output.rglob("*.part"))
