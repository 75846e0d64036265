"""Places that a run's tools cannot use are named before minutes are lost on them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gex_pipeline.cli.main import main
from tests.making_runs import clip_row, write_jsonl

RECIPE = (
    'name = "x"\noutput = "out"\n[source]\nclips = "clips.jsonl"\n'
    '[source.media]\nkind = "files"\nuri = "clips/{YoutubeID}.mp4"\n[granularity.SVST]\npack = true\n'
)


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    write_jsonl(tmp_path / "clips.jsonl", [clip_row()])
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return str(tmp_path / "recipe.toml")


@pytest.mark.parametrize("named", [True, False])
def test_a_prefect_home_that_cannot_be_written_is_said_before_prefect_is_started(recipe, monkeypatch, capsys, named):
    """In a container whose user has no home, its server was waited for two minutes, and a traceback came."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    monkeypatch.setenv("PREFECT_HOME" if named else "HOME", "/proc/nothing")
    assert main(["run", recipe]) == 1
    said = capsys.readouterr().err
    home = "/proc/nothing" if named else "/proc/nothing/.prefect"
    assert f"gex: Prefect keeps its state in PREFECT_HOME: cannot write to '{home}': " in said
    assert said.endswith("; set it to a folder for it\n")


def test_a_tmpdir_that_is_not_ascii_is_named():
    """The sentence was that there is no cluster at 'local', and what one with tokens wants."""
    script = (
        "from gex_pipeline.ray_jobs import ray_session\nfrom gex_pipeline.recipe import RaySettings\n"
        "with ray_session(RaySettings()):\n    pass\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "RAY_TMPDIR"}
    with tempfile.TemporaryDirectory(prefix="ö", dir="/tmp") as folder:  # one of pytest's is too long for Ray
        environment |= {"TMPDIR": folder, "PYTHONUTF8": "1"}
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert f"GexError: Ray takes no folder whose name is not ASCII, as '{folder}'; set TMPDIR to another" in done.stderr
