"""A third-party operation: one module and one entry point, as an installed package has them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gex_pipeline.errors import RecipeError
from gex_pipeline.registry import load_operation, operation_names

REVERSE = """
from typing import ClassVar
from gex_pipeline.operations.base import Group, Made, Operation, Workspace
from gex_pipeline.recipe import NodeSettings

class ReverseSettings(NodeSettings):
    speed: float = 1.0

class Reverse(Operation):
    Parameters: ClassVar[type[NodeSettings]] = ReverseSettings
    symbol: ClassVar[str] = "R"

    def make(self, group: Group, work: Workspace) -> Made:
        return Made(None)
"""
PROGRAM = """
from gex_pipeline.errors import RecipeError
from gex_pipeline.recipe import make_recipe
from gex_pipeline.registry import load_operation, operation_names
content = {
    "name": "t", "output": "o",
    "source": {"clips": "c.csv", "media": {"kind": "files", "uri": "{YoutubeID}.mp4"}},
    "granularity": {"SVST": {}, "BACK": {"operation": "reverse", "from": "SVST", "speed": 2.5}},
}
recipe = make_recipe(content)
operation = load_operation("reverse")(recipe, "BACK")
print(operation.settings.speed, operation.symbol, operation.builds_shards, ",".join(operation_names()))
print(load_operation("integrate").__module__)
for name, table in (("reverse", {"sped": 1}), ("broken", {})):
    content["granularity"]["BACK"] = {"operation": name, "from": "SVST", **table}
    try:
        make_recipe(content)
    except RecipeError as error:
        print(error)
"""


def test_the_four_built_in_operations_are_known_without_an_installation():
    names = operation_names()
    assert {"compress_text", "compress_video", "integrate"} <= set(names)
    assert "source" not in names
    assert load_operation("compress_video").symbol == "Θ_v"


def test_an_operation_that_is_not_known_is_refused_naming_those_that_are():
    with pytest.raises(RecipeError, match=r"operation = 'fly' is not known; there are: .*compress_video, .*integrate"):
        load_operation("fly")


def test_a_third_party_operation_takes_one_file_and_one_entry_point(tmp_path):
    (tmp_path / "gex_reverse.py").write_text(REVERSE)
    info = tmp_path / "gex_reverse-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gex-reverse\nVersion: 1.0\n")
    # The second names a class that is not there; the third tries to take the place of a built-in operation.
    (info / "entry_points.txt").write_text(
        "[gex.operations]\nreverse = gex_reverse:Reverse\nbroken = gex_reverse:Gone\nintegrate = gex_reverse:Reverse\n"
    )
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + PROGRAM
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    speed, symbol, builds, names = lines[0].split()
    assert (speed, symbol, builds) == ("2.5", "R", "True")
    assert "reverse" in names.split(",")
    assert lines[1] == "gex_pipeline.operations.integrate"
    assert "granularity.BACK.sped: unknown key; did you mean 'speed'" in lines[2]
    assert "operation = 'broken' cannot be loaded" in lines[3]
