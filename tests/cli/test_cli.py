"""`gex` as a person runs it: a process, its exit code, what stands on the two streams."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gex_pipeline import storage
from gex_pipeline.cli.main import main
from gex_pipeline.errors import BalanceError, GateError, GexError, RecipeError, TransientError
from gex_pipeline.run_state import begin, open_run
from tests.making_runs import clip_row, plan, recipe_of, write_jsonl
from tests.test_manifest import TWO

ROOT = Path(__file__).parent.parent.parent
RECIPE = """
name = "cli"
output = "output"
[source]
clips = "clips.jsonl"
media = { kind = "files", uri = "clips/{YoutubeID}-{Start_timestamp}.mp4" }
where = "Score > 0.3"
[shards]
max_samples = 2
[granularity.SVST]
[granularity.LVLT]
operation = "integrate"
from = "SVST"
[granularity.LVST]
operation = "compress_text"
from = "LVLT"
summarizer = { backend = "extractive" }
[granularity.IT]
operation = "compress_video"
from = "SVST"
"""
HEAVY = ("torch", "ray", "vllm", "transformers", "sentence_transformers", "bert_score", "prefect")
LISTING = f'atexit.register(lambda: print("LOADED", [n for n in {HEAVY!r} if n in sys.modules], file=sys.stderr))'


def gex(*arguments: str, cwd: Path | None = None, before: str = "") -> subprocess.CompletedProcess[str]:
    program = f"import sys\nfrom gex_pipeline.cli.main import main\n{before}\nsys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd or ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "160"},
    )


@pytest.fixture
def corpus(tmp_path):
    """Two sources of four and three usable clips; one row outside the predicate, one without a caption, one twice."""
    rows = [clip_row("v1", n * 10, n * 10 + 10, f"one {n}", Score=0.5) for n in range(4)]
    rows += [clip_row("v2", n * 10, n * 10 + 10, f"two {n}", Score=0.5) for n in range(3)]
    rows += [clip_row("v3", Score=0.1), clip_row("v4", caption="", Score=0.9), rows[0]]
    write_jsonl(tmp_path / "clips.jsonl", rows)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def test_help_says_what_there_is_and_loads_nothing_heavy():
    done = gex("--help", before="import atexit; atexit.register(lambda: sys.stderr.write(' '.join(sys.modules)))")
    assert done.returncode == 0
    for command in ("plan", "run", "status", "report", "demo"):
        assert command in done.stdout
    loaded = set(done.stderr.split())
    assert not loaded & {"torch", "ray", "prefect", "vllm", "duckdb", "pyarrow", "pydantic", "av"}


@pytest.mark.parametrize("command", ["plan", "run", "status", "report", "demo"])
def test_every_command_has_an_example(command):
    done = gex(command, "--help")
    assert done.returncode == 0
    assert f"gex {command}" in done.stdout.split("example:")[1]


@pytest.mark.parametrize(
    "arguments", [[], ["fly"], ["plan"], ["plan", "a", "--wrong"], ["report", "x", "--samples", "y"]]
)
def test_wrong_usage_ends_with_2(arguments):
    done = gex(*arguments)
    assert done.returncode == 2
    assert "usage: gex" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("max_samples", "max_sample"), "recipe.toml: shards.max_sample: unknown key; did you mean 'max_samples'?"),
        (('"integrate"', '"integrat"'), "granularity.LVLT.operation = 'integrat' is not known"),
        (("max_samples = 2", "max_samples = 0"), "shards.max_samples = 0: "),
        (('name = "cli"', "name = "), "not a TOML file"),
        (("Score > 0.3", "Score >"), "where = 'Score >' is not one SQL condition"),
        (("Score > 0.3", "Scoer > 0.3"), "Scoer"),
        (("{YoutubeID}", "{Youtube}"), "{Youtube} is not a column of the metadata"),
        (
            ('clips = "clips.jsonl"', 'clips = "clips.jsonl"\ncolumns = { caption = "text" }'),
            "the metadata has no column 'text'",
        ),
        (('clips = "clips.jsonl"', 'clips = "recipe.toml"'), "recipe.toml' is none of .parquet"),
    ],
)
def test_a_wrong_recipe_ends_with_2_and_one_message(corpus, change, message):
    assert change[0] in RECIPE
    (corpus / "recipe.toml").write_text(RECIPE.replace(*change))
    done = gex("plan", "recipe.toml", cwd=corpus)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.startswith("gex: ")
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_gate_on_a_score_that_is_not_taken_ends_plan_and_run_before_anything_starts(corpus):
    gate = '{ backend = "extractive" }\ngates = { bertscore_f1 = { min = 0.5 } }'
    (corpus / "recipe.toml").write_text(
        RECIPE.replace('{ backend = "extractive" }', gate) + "[scores]\nbertscore_model = false\n"
    )
    for command in ("plan", "run"):
        done = gex(command, "recipe.toml", cwd=corpus, before=f"import atexit\n{LISTING}")
        assert (done.returncode, done.stdout) == (2, "")
        message, listing = done.stderr.splitlines()
        assert message.startswith("gex: granularity.LVST.gates: [scores] takes no 'bertscore_f1'; it takes: rouge1, ")
        assert listing == "LOADED []"
    assert sorted(path.name for path in corpus.iterdir()) == ["clips.jsonl", "recipe.toml"]


def test_a_recipe_that_is_not_there_ends_with_2(tmp_path):
    done = gex("run", "none.toml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "gex: recipe 'none.toml' does not exist\n")


def test_metadata_that_are_not_there_end_with_1(corpus):
    (corpus / "clips.jsonl").unlink()
    done = gex("plan", "recipe.toml", cwd=corpus)
    assert done.returncode == 1
    assert done.stderr == f"gex: no file matches '{corpus}/clips.jsonl'\n"


def test_a_plan_says_what_a_run_would_do_and_writes_nothing(corpus):
    done = gex("plan", "recipe.toml", "--json", cwd=corpus)
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    account = content["ingest"]
    assert (account["num_in"], account["num_used"], account["num_known"]) == (10, 7, 0)
    assert account["excluded"] == {"filtered_by_where": 1}
    assert account["rejected"] == {"duplicate_clip": 1, "missing_caption": 1}
    lvlt, lvst, image = content["granularities"]
    figures = ("granularity", "num_parents", "num_samples", "num_members", "num_shards", "duration_s", "left_out")
    assert [lvlt[name] for name in figures] == ["LVLT", 7, 1, 4, 1, 40.0, {"too_few_clips": 3}]
    assert [lvst[name] for name in figures] == ["LVST", 1, 1, 1, 1, 40.0, {}]
    assert [image[name] for name in figures] == ["IT", 7, 7, 7, 4, 70.0, {}]
    assert sorted(path.name for path in corpus.iterdir()) == ["clips.jsonl", "recipe.toml"]


def test_a_plan_for_a_person_has_the_same_figures(corpus):
    done = gex("plan", "recipe.toml", cwd=corpus)
    assert done.returncode == 0, done.stderr
    assert "10 rows: 7 clips to use" in done.stdout
    assert "excluded  1 filtered_by_where" in done.stdout
    assert "rejected  1 duplicate_clip, 1 missing_caption" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.strip().startswith("LVLT")]
    assert line.split()[:6] == ["LVLT", "integrate", "SVST", "7", "4", "3"]
    assert f"output  {corpus}/output  (snapshot 0)" in done.stdout


def test_another_recipe_is_shown_with_what_it_would_make_and_needs_a_word(corpus):
    recipe = recipe_of(corpus)
    content = json.loads(TWO.to_json())
    content["snapshots"][-1] |= {"recipe": recipe.resolved() | {"seed": 5}, "recipe_hash": "other"}
    content["snapshots"] = [{**snapshot, "granularities": {}, "tables": []} for snapshot in content["snapshots"]]
    storage.publish_bytes(json.dumps(content).encode(), f"{corpus}/output/dataset.json")
    planned = gex("plan", "recipe.toml", cwd=corpus)
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.startswith("changed  seed was 5, is 0\n")
    done = gex("run", "recipe.toml", cwd=corpus)
    assert done.returncode == 2
    assert done.stdout == planned.stdout
    assert "was made with another recipe: seed was 5, is 0" in done.stderr
    assert "Published samples are never rewritten" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GexError("no room"), 1),
        (RecipeError("no such key"), 2),
        (BalanceError("a clip was lost"), 3),
        (GateError("a mean is too low"), 4),
        (TransientError("storage is busy"), 75),
    ],
)
def test_what_went_wrong_is_told_by_the_exit_code_too(monkeypatch, capsys, error, code):
    def command(_):
        raise error

    monkeypatch.setattr("gex_pipeline.cli.status.command", command)
    assert main(["status", "somewhere"]) == code
    assert capsys.readouterr().err == f"gex: {error}\n"


def test_the_status_of_an_empty_folder_ends_with_1(tmp_path):
    done = gex("status", str(tmp_path))
    assert (done.returncode, done.stderr) == (1, f"gex: {tmp_path} holds no data set and no run was begun there\n")


def test_the_status_of_a_published_output_lists_it(tmp_path):
    manifest = json.loads(TWO.to_json())
    for snapshot in manifest["snapshots"]:
        for entry in snapshot["granularities"].values():
            entry["totals"] = {"samples": 3, "shards": 1, "bytes": 1000, "words": 12, "duration_s": 30.0}
    (tmp_path / "dataset.json").write_text(json.dumps(manifest))
    done = gex("status", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "snapshot 1" in done.stdout
    assert "balanced" in done.stdout
    assert "not finished" not in done.stdout
    content = json.loads(gex("status", str(tmp_path), "--json").stdout)
    assert [entry["snapshot"] for entry in content["manifest"]["snapshots"]] == [0, 1]
    assert content["under_way"] == []


def test_the_status_of_a_run_under_way_counts_its_shards(corpus):
    recipe = recipe_of(corpus, granularity={"SVST": {"pack": True}}, shards={"max_samples": 3})
    run = begin(open_run(recipe))
    plan(run, "SVST")
    done = gex("status", recipe.output_uri)
    assert done.returncode == 0, done.stderr
    assert "not finished: snapshot 0, last at stage 'begun'" in done.stdout
    content = json.loads(gex("status", recipe.output_uri, "--json").stdout)
    assert content["under_way"] == [{"granularity": "SVST", "planned": 3, "built": 0}]
    assert content["manifest"] is None


def test_a_damaged_manifest_is_one_message(tmp_path):
    (tmp_path / "dataset.json").write_text("{")
    done = gex("status", str(tmp_path))
    assert done.returncode == 1
    assert "is not a data set's manifest" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_is_no_traceback(corpus, unbuffered):
    """`gex plan recipe.toml | head -1` ended with a BrokenPipeError."""
    program = "import sys\nfrom gex_pipeline.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "plan", str(corpus / "recipe.toml")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait(timeout=60)) == (b"", 141)
