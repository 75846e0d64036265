"""For every test: no network and no GPU, whatever the machine has; a few drawn clips; one Ray and one Prefect.

The environment is set before anything is imported, since Ray and Prefect read it when they are loaded.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

_PREFECT_HOME = tempfile.mkdtemp(prefix="gex-prefect-")
atexit.register(shutil.rmtree, _PREFECT_HOME, ignore_errors=True)
os.environ.update(
    {
        "AWS_EC2_METADATA_DISABLED": "true",
        "CUDA_VISIBLE_DEVICES": "",
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


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """The environment that Ray's workers inherit: where the object store is, and an operation of somebody else."""
    from gex_pipeline import registry
    from tests.end_to_end.object_store import ObjectStore
    from tests.end_to_end.third_party import install_third_party
    from tests.faults.faulty_store import FaultyStore

    store = ObjectStore()
    store.proxy = FaultyStore(store.url)  # on the way to the store, so that it can be told to fail
    plugin = install_third_party(tmp_path_factory.mktemp("third_party"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": store.proxy.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), str(plugin)]),
        }.items():
            patch.setenv(name, value)
        patch.setattr(sys, "path", [*sys.path, str(plugin)])
        registry._known.cache_clear()  # tests before this one may have asked which operations there are
        yield store
    store.proxy.close()
    store.close()


@pytest.fixture(scope="session")
def prefect_server():
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    # Without the heartbeat a flow run ends at once and not a second later.
    with (
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield


@pytest.fixture(scope="session")
def ray_local(world):
    import logging

    import ray

    folder = tempfile.mkdtemp(prefix="gex-ray-")  # short: Unix sockets lie in it
    ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=100_000_000,
        include_dashboard=False,
        _temp_dir=folder,
        logging_level=logging.WARNING,
        log_to_driver=False,
    )
    yield ray
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def running(prefect_server, ray_local):
    """Everything a flow needs is up."""
