"""One Ray, one Prefect server, one object store and one drawn corpus for everything in this folder."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from tests.end_to_end.object_store import ObjectStore
from tests.end_to_end.third_party import install_third_party

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in Path(item.path).parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(240))


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """The environment that Ray's workers inherit: where the object store is, and an operation of somebody else."""
    store = ObjectStore()
    plugin = install_third_party(tmp_path_factory.mktemp("third_party"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": store.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(plugin)]),
        }.items():
            patch.setenv(name, value)
        patch.setattr(sys, "path", [*sys.path, str(plugin)])
        yield store
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


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Five drawn sources without faults, of 4, 8, 7, 2 and 5 clips. Treat as read-only."""
    from gex_pipeline.demo import CorpusSettings, draw_corpus

    folder = tmp_path_factory.mktemp("corpus") / "corpus"
    draw_corpus(folder, CorpusSettings(num_sources=5, faults=False, seed=7, workers=1))
    return folder


@pytest.fixture(scope="session")
def clip_model(tmp_path_factory, corpus):
    """A CLIP on disk, of a few random weights."""
    from tests.end_to_end.running import metadata_of
    from tests.validate.tiny_clip import write_tiny_clip

    return write_tiny_clip(tmp_path_factory.mktemp("tiny_clip"), [row["Caption"] for row in metadata_of(corpus)])


@pytest.fixture(scope="session")
def paper_output(running, corpus, clip_model, tmp_path_factory):
    """The paper's recipe, run once with its report. Treat as read-only."""
    from tests.end_to_end.paper import paper_recipe
    from tests.end_to_end.running import expand_to, write_recipe

    recipe = write_recipe(tmp_path_factory.mktemp("paper"), paper_recipe(corpus, clip_model))
    return expand_to(recipe, report=True)
