"""The scripts of docker/ as modules; no package of the project has their names."""

from __future__ import annotations

import importlib.util
import sys

from tests.docker.reading import DOCKER

for _name in ("make_env", "beside_ray"):
    _spec = importlib.util.spec_from_file_location(f"docker_{_name}", DOCKER / f"{_name}.py")
    _module = importlib.util.module_from_spec(_spec)
    sys.modules[_spec.name] = _module
    _spec.loader.exec_module(_module)
