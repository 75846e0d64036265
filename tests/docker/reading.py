"""What the files under docker/ say, read as the tools read them, as far as tests ask."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from gex_pipeline.tables import _memory_bytes

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
KUBERNETES = DOCKER / "kubernetes"
COMPOSE = DOCKER / "compose.yaml"
DOCKERFILES = ("Dockerfile", "Dockerfile.gpu")
FROM_ELSEWHERE = {"postgres", "object-store"}

_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def yaml_documents(file):
    yaml = pytest.importorskip("yaml")
    return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))


def compose():
    return yaml_documents(COMPOSE)[0]


def services():
    return compose()["services"]


def variables(text):
    """The variables of a compose file as (name, '-' or '?' or None, what follows it)."""
    return [match.groups() for match in _VARIABLE.finditer(text)]


def filled(text):
    """A value of a compose file, with the default of each variable."""
    return _VARIABLE.sub(lambda match: match[3] if match[2] == "-" else f"<{match[1]}>", str(text))


def instructions(name):
    """A Dockerfile as [(instruction, arguments)]: comments left out, lines joined."""
    lines = [line for line in (DOCKER / name).read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [
        (word.upper(), " ".join(rest.split()))
        for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())
    ]


def last_stage(name):
    found = instructions(name)
    return found[max(at for at, (word, _) in enumerate(found) if word == "FROM") :]


def argument(name, key):
    """The default of a build argument."""
    values = [
        rest.partition("=")[2] for word, rest in instructions(name) if word == "ARG" and rest.startswith(f"{key}=")
    ]
    assert values, f"{name} has no ARG {key}"
    return values[0].strip('"')


def exec_form(arguments):
    """The words of a CMD in exec form."""
    words = json.loads(arguments)
    assert isinstance(words, list)
    return words


def pins(file):
    """The lines name==version of a constraints file, by normalised name."""
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return {normal(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def driver_bytes(environment):
    """What a driver's container takes at least: DuckDB up to its limit, and 2 GB for Ray's node and all else.

    Ten million clips took 2.9 GB in the driver, and a head with nothing to do took 1.9.
    """
    given = environment.get("GEX_DATABASE_GB")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEX_DATABASE_GB", given) if given else patch.delenv("GEX_DATABASE_GB", raising=False)
        return _memory_bytes() + 2e9


def pyproject():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def program(name):
    """A program of this environment; the test is skipped where it is not installed."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found
