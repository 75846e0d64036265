"""Imports go one way. Names are resolved from the source, also those of imports inside functions."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A module may import from its own layer and from those before it.
LAYERS = (
    ("errors", "settings_errors", "stopping", "cores"),
    ("granularity", "shard_format", "run_log", "storage_patterns"),
    (
        "progress",
        "media.settings",
        "validate.settings",
        "summarize.settings",
        "summarize.running",
        "registry",
        "recipe",
    ),
    ("tables", "storage_failures", "object_store", "storage", "claims", "layout", "receipts", "source_tars", "inputs"),
    (
        "shards",
        "recipe_changes",
        "retry",
        "run_state",
        "run_lock",
        "media",
        "summarize",
        "validate",
        "demo",
        "metadata",
        "metadata_text",
        "metadata_types",
    ),
    ("model_places",),
    ("operations", "clip_places", "ingest", "media_index", "barred", "rejects", "planning", "shard_job"),
    ("ray_node", "ray_code", "ray_usage"),
    ("rehearsal",),
    ("ray_worker", "timeline"),
    ("ray_jobs", "ray_scorer", "ray_submit", "report"),
    ("browse",),
    ("stages",),
    ("flows",),
    ("cli",),
)
HEAVY = ("torch", "ray", "vllm", "prefect", "transformers", "sentence_transformers", "bert_score", "matplotlib", "av")
OWNERS = {
    "duckdb": ("tables",),
    "av": ("media", "demo"),
    "ffmpeg": ("media", "demo"),
    "imageio_ffmpeg": ("media",),
    "ray": ("ray_jobs", "ray_submit", "ray_usage", "ray_worker", "summarize.vllm_backend"),
    "vllm": ("summarize.vllm_backend",),
    "prefect": ("flows",),
    "openai": ("summarize",),
    "starlette": ("browse",),
    "uvicorn": ("browse",),
    "tarfile": ("shard_format", "source_tars", "shards"),
}


def modules() -> list[tuple[str, Path]]:
    found = []
    for file in sorted([*(ROOT / "gex_pipeline").rglob("*.py"), *(ROOT / "flows").rglob("*.py")]):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found.append((".".join(part for part in parts if part != "__init__"), file))
    return found


def imports(file: Path, module: str) -> Iterator[str]:
    """Every module that a file imports, anywhere in it; `from a import b` counts as a.b where that is a module."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")[: -node.level]
                base = ".".join([*above, base]).rstrip(".")
            for alias in node.names:
                below = ROOT.joinpath(*base.split("."), alias.name)
                is_module = below.is_dir() or below.with_suffix(".py").exists()
                yield f"{base}.{alias.name}" if is_module else base


def layer_of(module: str) -> int:
    """The layer of the longest name that fits, so that `media.settings` is not `media`."""
    name = module.removeprefix("gex_pipeline.")
    fitting = [
        (len(entry), level)
        for level, entries in enumerate(LAYERS)
        for entry in entries
        if name == entry or name.startswith(f"{entry}.")
    ]
    assert fitting, f"{module} belongs to no layer; say in tests/test_imports.py to which"
    return max(fitting)[1]


MODULES = [(name, file) for name, file in modules() if name != "gex_pipeline"]


@pytest.mark.parametrize(("module", "file"), MODULES, ids=[name for name, _ in MODULES])
def test_a_module_imports_from_its_own_layer_or_from_those_before_it(module, file):
    ours = {name for name in imports(file, module) if name.startswith(("gex_pipeline.", "flows"))}
    wrong = {name for name in ours if layer_of(name) > layer_of(module)}
    knows_trainer = module.startswith(("gex_pipeline.cli.", "gex_pipeline.stages.models"))
    foreign = {"tests", "benchmarks"} if knows_trainer else {"trainer", "tests", "benchmarks"}
    assert not any(name.split(".")[0] in foreign for name in imports(file, module))
    assert not wrong, f"{module} imports upwards: {sorted(wrong)}"


@pytest.mark.parametrize("package", OWNERS)
def test_a_package_is_imported_in_its_room_only(package):
    found = {
        module.removeprefix("gex_pipeline.")
        for module, file in MODULES
        for name in imports(file, module)
        if name == package or name.startswith(f"{package}.")
    }
    others = {name for name in found if not any(name == own or name.startswith(f"{own}.") for own in OWNERS[package])}
    assert not others


def test_an_import_inside_a_function_is_seen_and_so_is_a_relative_one(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from gex_pipeline import cli\n    import ray.data\n    from . import run_state\n")
    found = set(imports(file, "gex_pipeline.tables"))
    assert found == {"gex_pipeline.cli", "ray.data", "gex_pipeline.run_state"}
    assert layer_of("gex_pipeline.cli.plan") > layer_of("gex_pipeline.run_state") > layer_of("gex_pipeline.tables")
    assert layer_of("gex_pipeline.media.settings") < layer_of("gex_pipeline.media.join")


def test_only_the_command_that_runs_flows_loads_them():
    found = {module for module, file in MODULES for name in imports(file, module) if name.split(".")[0] == "flows"}
    assert {module for module in found if not module.startswith("flows")} <= {"gex_pipeline.cli.run"}


@pytest.mark.parametrize(
    "module",
    [
        "gex_pipeline.shards.manifest",
        "gex_pipeline.recipe",
        "gex_pipeline.cli.main",
        "gex_pipeline.cli.plan",
        "gex_pipeline.cli.status",
        "gex_pipeline.cli.run",
        "gex_pipeline.ray_jobs",
    ],
)
def test_a_light_module_loads_nothing_heavy(module):
    program = f"import sys, {module}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT, check=True
    )
    assert done.stdout.split() == []


def test_the_manifest_reader_loads_no_database_and_no_recipe():
    names = ("duckdb", "pydantic", "pyarrow")
    program = f"import sys, gex_pipeline.shards.manifest\nprint(*[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT, check=True
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("file", sorted((ROOT / "trainer").rglob("*.py")), ids=lambda file: file.stem)
def test_the_trainer_takes_the_contracts_of_the_pipeline_and_nothing_more(file):
    """Of the pipeline: what a data set looks like, how files are opened and what they promise, how texts are drawn."""
    module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    ours = {name.removeprefix("gex_pipeline.") for name in imports(file, module) if name.startswith("gex_pipeline")}
    contracts = {
        "gex_pipeline",
        "errors",
        "settings_errors",
        "storage",
        "storage_failures",
        "layout",
        "run_lock",
        "shard_format",
        "receipts",
        "media.decoding",
        "media.outline",
        "media.source",
        "shards.manifest",
        "progress",
    }
    assert ours <= contracts | {"report.lettering", "report.axis", "report.svg"}
