"""Whole runs on storage that fails: a store that is disturbed, one that refuses, and disks that are full."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gex_pipeline import storage
from tests.end_to_end.running import NO_MODELS, counted_again, expand_to, run_flow, source_table, sums, write_recipe
from tests.end_to_end.test_object_store import bucket, download, objects, recipe_for  # noqa: F401  a fixture
from tests.faults import full_disk
from tests.faults.faulty_store import ALWAYS, Fault

ROOT = Path(__file__).parents[2]
KEY_ID, SECRET = "AKIAWRONGWRONGWRONG0", "veryverysecretsecretsecretsecretsecret00"
TWO_NODES = """
[shards]
max_samples = 2
[granularity.SVST]
pack = true
[granularity.LVLT]
operation = "integrate"
from = "SVST"
"""


def gex_run(recipe, home, **environment):
    command = [sys.executable, "-m", "gex_pipeline.cli.main", "run", str(recipe)]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PREFECT_HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_run_over_a_disturbed_store_ends_in_the_same_bytes(running, bucket, world, tmp_path):  # noqa: F811
    assert run_flow(recipe_for(tmp_path / "quiet", bucket, "quiet")).is_completed()
    faults = [
        Fault("answer", "GET", "/clips/", times=2),
        Fault("cut", "GET", "/clips/", times=3),
        Fault("slow", "GET", "/clips/", times=2, bytes_a_s=30_000),
        Fault("answer", "HEAD", "disturbed", status=503, code="SlowDown", times=2),
        Fault("cut", "GET", ".parquet", times=3),
        Fault("answer", "PUT", ".tar", times=2),
        Fault("reset", "PUT", ".tar", times=1),
        Fault("close", "PUT", ".parquet", times=2),
        Fault("answer", "GET", "list-type=2", status=503, code="SlowDown", times=2),
    ]
    with world.proxy.faults(*faults):
        state = run_flow(recipe_for(tmp_path / "disturbed", bucket, "disturbed"))
    assert state.is_completed(), state.result(raise_on_failure=False)
    assert [fault for fault in faults if fault.num_done != fault.times] == []
    quiet, disturbed = (download(bucket, name, tmp_path / "copy" / name) for name in ("quiet", "disturbed"))
    assert counted_again(disturbed).reasons() == counted_again(quiet).reasons()
    assert sums(disturbed) == sums(quiet)
    assert sorted(sums(quiet)) == ["LVLT/LVLT-000000.tar", "LVST/LVST-000000.tar"]


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"])
def test_credentials_that_are_refused_end_a_run_at_once(bucket, world, tmp_path, code):  # noqa: F811
    before = objects(bucket, "in")
    recipe = recipe_for(tmp_path, bucket, "refused")
    fault = Fault("answer", status=403, code=code, text=f"{KEY_ID} {SECRET}", times=ALWAYS)
    with world.proxy.faults(fault) as seen:
        done = gex_run(recipe, tmp_path / "home", AWS_ACCESS_KEY_ID=KEY_ID, AWS_SECRET_ACCESS_KEY=SECRET)
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(rf"gex: storage failed for '{bucket}/in': the [^\n]*; (check|renew)[^\n]*\n", done.stderr)
    assert len(seen) == 1, "no second try"
    logs = [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(word in text for word in (KEY_ID, SECRET) for text in (*logs, done.stderr))
    assert objects(bucket, "in") == before
    assert storage.list_files(f"{bucket}/refused/*") == []


@pytest.mark.parametrize("where", ["source", "output"])
def test_a_missing_bucket_ends_a_run_at_once(bucket, world, tmp_path, where):  # noqa: F811
    recipe = recipe_for(tmp_path, bucket, "x")
    part = "/x" if where == "output" else "/in/clips*.jsonl"
    recipe.write_text(recipe.read_text().replace(f'"{bucket}{part}"', f'"s3://nobodys-bucket{part}"'))
    with world.proxy.faults() as seen:
        done = gex_run(recipe, tmp_path / "home")
    assert done.returncode == 1
    pattern = r"gex: storage failed for 's3://nobodys-bucket/[^']*': the bucket does not exist; create it, or [^\n]*\n"
    assert re.fullmatch(pattern, done.stderr)
    assert {method for method, _ in seen} <= {"GET", "HEAD"}
    assert len(seen) <= 4


def may_mount(folder):
    """Whether this account may make a namespace in which it may mount; containers often forbid it."""
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
    except OSError:
        return False


def test_a_full_output_and_a_full_scratch_folder_stop_a_run_that_ends_well_once_there_is_room(
    running, corpus, tmp_path
):
    from prefect.settings import PREFECT_API_URL

    if not may_mount(tmp_path):
        pytest.skip("no disk can be made here that is full; tests/faults has the same with a limit of file sizes")
    body = source_table(corpus) + NO_MODELS + TWO_NODES
    quiet = expand_to(write_recipe(tmp_path / "quiet", body))
    recipe = write_recipe(tmp_path / "full", body)
    command = ["unshare", "-rm", sys.executable, full_disk.__file__, str(recipe), "300k", "200k"]
    environment = os.environ | {
        "PREFECT_API_URL": PREFECT_API_URL.value(),
        "RAY_TMPDIR": tempfile.gettempdir(),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    full, no_scratch, mended = json.loads(done.stdout)
    assert (full["code"], no_scratch["code"], mended["code"]) == (1, 1, 0), done.stdout
    no_space = r"no space is left on this disk; make room. Run the same command again to go on\n$"
    assert re.search(
        rf"\ngex: \d+ shards of \w+ were not built .*'{tmp_path}/full/output/.*': {no_space}", full["error"]
    )
    assert re.search(
        rf"\ngex: .*'{tmp_path}/full/scratch \(the scratch folder, see TMPDIR\)': {no_space}", no_scratch["error"]
    )
    for stopped in (full, no_scratch):
        assert "dataset.json" not in stopped["files"]
        assert not any(name.endswith((".part", "run.lock")) for name in stopped["files"])
        tars = {name for name in stopped["files"] if name.endswith(".tar")}
        assert all(name.replace(".tar", ".parquet") in stopped["files"] for name in tars), "a tar without its receipt"
        assert stopped["scratch"] == []
    found = {name: digest for name, digest in mended["files"].items() if name.endswith(".tar")}
    assert found == sums(quiet.folder)
    assert not any(name.endswith(".part") for name in mended["files"])
