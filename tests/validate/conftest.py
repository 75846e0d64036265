"""Models of this room, each loaded once a session; no test here may reach a model hub."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.validate.groups import LONG_TEXTS, SUMMARIES
from tests.validate.tiny_clip import write_tiny_clip

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub library is imported, so before any test module
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    from gex_pipeline.validate.weights import find_weights

    return Path(find_weights("minilm").source)


@pytest.fixture(scope="session")
def sentence():
    from gex_pipeline.validate.sentence import SentenceCosine

    return SentenceCosine("minilm")


@pytest.fixture(scope="session")
def bertscore():
    from gex_pipeline.validate.bertscore import BertScore

    return BertScore(None, None)


@pytest.fixture(scope="session")
def tiny_clip_folder(tmp_path_factory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("models") / "tiny-clip", [*SUMMARIES, *LONG_TEXTS])


@pytest.fixture(scope="session")
def clip(tiny_clip_folder):
    from gex_pipeline.validate.clip import ClipCosine

    return ClipCosine(str(tiny_clip_folder))
