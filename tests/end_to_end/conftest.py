"""One drawn corpus and one run of the paper's recipe for everything in this folder (see tests/conftest.py for Ray)."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in Path(item.path).parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(240))


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
