"""For every test: an environment in which nothing reaches the network; and a few small drawn clips.

The environment is set before anything is imported, since Ray and Prefect read it when they are loaded.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

_PREFECT_HOME = tempfile.mkdtemp(prefix="gex-prefect-")
atexit.register(shutil.rmtree, _PREFECT_HOME, ignore_errors=True)
os.environ.update(
    {
        "AWS_EC2_METADATA_DISABLED": "true",
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
        "PREFECT_HOME": _PREFECT_HOME,
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
        "RAY_AUTH_MODE": "disabled",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        "RAY_DATA_LOG_LEVEL": "ERROR",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_LOG_TO_DRIVER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_OFFLINE": "1",
    }
)

import pytest  # noqa: E402


@pytest.fixture(scope="session")
def small_clips(tmp_path_factory):
    """Eight drawn clips of 0.48 s, `a-0.mp4` to `a-4.mp4` and `b-0.mp4` to `b-2.mp4`; clip n says number n.

    Treat the files as read-only.
    """
    from tests.media.making_clips import make_clip

    folder = tmp_path_factory.mktemp("small_clips")
    for number, name in enumerate(["a-0", "a-1", "a-2", "a-3", "a-4", "b-0", "b-1", "b-2"]):
        make_clip(folder / f"{name}.mp4", number)
    return folder
