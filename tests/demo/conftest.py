"""One small corpus with faults, drawn once for every test of this folder."""

from __future__ import annotations

import pytest

from gex_pipeline.demo import CorpusSettings, draw_corpus

SETTINGS = CorpusSettings(num_sources=4, seed=3, workers=1)


@pytest.fixture(scope="session")
def settings():
    return SETTINGS


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "corpus"
    draw_corpus(folder, SETTINGS)
    return folder
