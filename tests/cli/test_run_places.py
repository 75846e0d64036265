"""Places that a run's tools cannot use are named before minutes are lost on them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile


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
