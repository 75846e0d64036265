"""Where scoring workers put their models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gex_pipeline import ray_jobs
from gex_pipeline.ray_jobs import ScorerPool
from gex_pipeline.recipe import RaySettings
from gex_pipeline.validate.settings import ScorerSettings

ROOT = Path(__file__).parents[2]
ON_ONE_GPU = """
import ray
from gex_pipeline import ray_jobs
from gex_pipeline.recipe import RaySettings
from gex_pipeline.validate.settings import ScorerSettings
from tests.end_to_end.test_scoring_workers import Telling

ray_jobs.Scorer = Telling
ray.init(address="local", num_cpus=2, num_gpus=1, object_store_memory=10**8, include_dashboard=False)
with ray_jobs.ScorerPool(ScorerSettings(), RaySettings(scorer_gpus=0.5)) as pool:
    print("FOUND", *pool.score_texts(["a"], ["b"]).result())
"""


class BesideEngine(ray_jobs.Scorer):
    """A scoring worker on a machine whose GPU an engine has: Ray hides it from nobody who asks for none."""

    def __init__(self, *arguments):
        import torch

        torch.cuda.is_available = lambda: True  # in this worker's process
        super().__init__(*arguments)

    def score_texts(self, pairs):
        """The device of the model that scored is told, too."""
        rows = super().score_texts(pairs)
        return [{**row, "device": str(self._scorers._sentence._model.device)} for row in rows]


class Telling(BesideEngine):
    """Tells what it would take, and loads nothing: the GPU is one for Ray alone."""

    def score_texts(self, pairs):
        from gex_pipeline.validate.weights import pick_device

        return [(pick_device(self._scorers._device), os.environ.get("CUDA_VISIBLE_DEVICES")) for _ in pairs]


def test_workers_without_a_gpu_score_on_the_cpu_where_there_is_one(ray_local, monkeypatch):
    """They used to score on the first GPU, and the engine there found too little memory and did not start."""
    monkeypatch.setattr(ray_jobs, "Scorer", BesideEngine)
    scores = ScorerSettings(rouge=False, bertscore_model=None)
    with ScorerPool(scores, RaySettings(scorer_gpus=0)) as pool:
        scoring = pool.score_texts(["a dog runs"], ["a dog runs"])
        assert not scoring.is_done(), "who asks goes on while the model is loaded"
        (row,) = scoring.result()
        assert scoring.is_done()
    assert row == {"sentence_cosine": pytest.approx(1, abs=1e-5), "device": "cpu"}


def test_workers_that_ask_for_a_gpu_take_the_one_that_ray_gives_them():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    done = subprocess.run(
        [sys.executable, "-c", ON_ONE_GPU], capture_output=True, text=True, env=environment, timeout=180, check=True
    )
    assert [line for line in done.stdout.splitlines() if line.startswith("FOUND")] == ["FOUND ('cuda', '0')"]
