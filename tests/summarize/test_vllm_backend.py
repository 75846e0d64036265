from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gex_pipeline.demo.captions import caption
from gex_pipeline.demo.stories import make_story, seeded
from gex_pipeline.errors import GexError, MissingExtraError, Reason
from gex_pipeline.summarize.backends import backend
from gex_pipeline.summarize.checks import grounding
from gex_pipeline.summarize.request import SummaryRequest, request_digest
from gex_pipeline.summarize.settings import SummarizerSettings
from gex_pipeline.summarize.vllm_backend import engine_config
from tests.summarize.stories import request

MODEL = Path(os.environ.get("GEX_TEST_LM") or Path(__file__).parents[1] / "tiny_lm" / "model")
HAS_VLLM = importlib.util.find_spec("vllm") is not None
needs_model = pytest.mark.skipif(not MODEL.is_dir(), reason=f"no tiny language model at {MODEL}; set GEX_TEST_LM")
needs_vllm = pytest.mark.skipif(not HAS_VLLM, reason="vLLM is not installed")


def story(number: int) -> SummaryRequest:
    """A group in the words that the tiny model was trained on: captions of one drawn video."""
    rng = seeded("vllm backend", number)
    return request(tuple(caption(scene, rng) for scene in make_story(4, rng)), key=f"k{number}")


def settings(**change: object) -> SummarizerSettings:
    values: dict[str, object] = {"model": str(MODEL), "max_model_len": 512, "max_tokens": 48, "example": False}
    return SummarizerSettings(backend="vllm", **{**values, **change})


@contextmanager
def a_ray() -> Iterator[None]:
    """A Ray without GPUs, or the one that is there."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
        }.items():
            patch.setenv(name, value)
        import ray

        if ray.is_initialized():  # of the end-to-end tests
            yield
            return
        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            object_store_memory=100 * 2**20,
            log_to_driver=False,
        )
        yield
        ray.shutdown()


@pytest.fixture
def ray_local() -> Iterator[None]:
    with a_ray():
        yield


@pytest.mark.slow
@pytest.mark.timeout(400)
@needs_vllm
@needs_model
def test_every_request_is_answered_under_its_id_and_an_over_long_one_costs_one_row(ray_local: None) -> None:
    """Twenty good requests, and in their midst one whose prompt is over the engine's context length."""
    good = [story(number) for number in range(20)]
    long = request(tuple(f"{number} zwiebelgewuerzkuchen " * 20 for number in range(20)), key="long")
    chosen = settings(batch_size=8)
    answers = {answer.key: answer for answer in backend(chosen).answer([*good[:7], long, *good[7:]], chosen)}

    assert set(answers) == {*(item.key for item in good), "long"}
    assert answers["long"].error_kind == Reason.prompt_too_long, answers["long"]
    assert "512" in (answers["long"].error or "")
    for item in good:
        answer = answers[item.key]
        assert (answer.source_digest, answer.request_digest) == (item.source_digest, request_digest(item, chosen))
        assert answer.error is None, answer
        assert answer.num_prompt_tokens > 20
        assert 0 < answer.num_generated_tokens <= 48
        assert answer.finish == ("length" if answer.num_generated_tokens == 48 else "stop")
    # The words of an answer are those of its own captions, rather than of its neighbour's.
    own = sum(grounding(answers[item.key].raw_text, item.captions) for item in good)
    other = sum(grounding(answers[item.key].raw_text, good[i - 5].captions) for i, item in enumerate(good))
    assert own > other, {key: answer.raw_text for key, answer in answers.items()}


WITHOUT_RAY = """
import sys
from gex_pipeline.errors import GexError
from tests.summarize.test_vllm_backend import backend, settings, story
chosen = settings(model=sys.argv[1])
try:
    next(backend(chosen).answer([story(0)], chosen))
except GexError as error:
    print(error)
"""


@needs_vllm
@needs_model
def test_without_ray_one_sentence_says_so() -> None:
    """In a process of its own: other tests of the session may have a Ray."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", WITHOUT_RAY, str(MODEL)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=True)
    assert "Ray is not started" in done.stdout


@needs_vllm
def test_a_missing_or_empty_model_directory_is_named(tmp_path: Path) -> None:
    for model, message in ((tmp_path / "none", "does not exist"), (tmp_path, "holds no config.json")):
        chosen = settings(model=str(model))
        with pytest.raises(GexError, match=message) as caught:
            backend(chosen).check_ready(chosen)
        assert str(model) in str(caught.value)


def test_a_missing_engine_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    monkeypatch.setattr("sys.path_importer_cache", {})
    monkeypatch.delitem(__import__("sys").modules, "vllm", raising=False)
    chosen = settings(model="org/name")
    with pytest.raises(MissingExtraError, match=r"vllm is not installed.*constraints-gpu.txt -e .\.\[vllm\]"):
        backend(chosen).check_ready(chosen)


@needs_model
def test_engines_take_gpus_where_there_are_some_and_parts_of_cpus_elsewhere() -> None:
    chosen = settings(engine={"max_num_seqs": 7, "gpu_memory_utilization": 0.5}, concurrency=2)
    gpu = engine_config(chosen, {"GPU": 8, "CPU": 64})
    assert "placement_group_config" not in gpu
    whole = {"disable_log_stats": True, "stream_interval": chosen.max_tokens}  # answers whole, not token by token
    ours = {"max_model_len": 512, "max_num_batched_tokens": 8192}
    assert gpu["engine_kwargs"] == whole | ours | {"max_num_seqs": 7, "gpu_memory_utilization": 0.5}
    assert gpu["max_pending_requests"] == gpu["max_concurrent_batches"] * chosen.batch_size >= 2 * 7
    unbound = engine_config(settings(batch_size=64), {"GPU": 8})
    assert (unbound["max_concurrent_batches"], unbound["max_pending_requests"]) == (8, 512)
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in gpu["runtime_env"]["env_vars"]

    cpu = engine_config(chosen, {"CPU": 2})
    assert cpu["placement_group_config"] == {"bundle_per_worker": {"CPU": 1.0}}
    assert (cpu["engine_kwargs"]["dtype"], cpu["engine_kwargs"]["max_num_seqs"]) == ("float32", 7)
    assert cpu["runtime_env"]["env_vars"]["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert cpu["chat_template_stage"]["num_cpus"] + 1.0 + 2 * 0.1 <= 2  # the whole pipeline fits on two CPUs
    assert cpu["should_continue_on_error"] is True
