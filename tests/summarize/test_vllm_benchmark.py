"""The bare engine of benchmarks/vllm_stage.py: on what the stage's is, with its arguments."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.vllm_stage import TINY, _settings, bare_engine, make_wide_model, with_batch_sizes
from gex_pipeline.summarize.vllm_backend import engine_config

ROOT = Path(__file__).parents[2]
WORDS = {"batch": 64, "max_model_len": 1024, "engine": None, "wide": None, "model": str(TINY)}
RESOLVE = """
import json, sys
from benchmarks.vllm_stage import with_batch_sizes
print("FOUND " + json.dumps(with_batch_sizes(json.loads(sys.argv[1]))))
"""


def settings(**change):
    return _settings(argparse.Namespace(**{**WORDS, **change}))


@pytest.mark.parametrize("resources", [{"CPU": 2.0}, {"CPU": 8.0, "GPU": 1.0}])
def test_the_bare_engine_has_the_stages_arguments_on_what_ray_found(resources):
    """A flag said whether there was a GPU, to the bare side alone: without it the two sides ran different engines."""
    config = engine_config(settings(), resources)
    arguments, variables = bare_engine(config)
    executor = arguments.pop("distributed_executor_backend", None)
    assert arguments == {"model": str(TINY), **config["engine_kwargs"]}
    on_cpu = "GPU" not in resources
    assert (arguments.get("dtype"), executor) == (("float32", "uni") if on_cpu else (None, None))
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in variables


def test_on_a_gpu_both_sides_take_the_stages_batch_sizes():
    config = engine_config(settings(), {"GPU": 1.0})
    arguments = with_batch_sizes(bare_engine(config)[0])
    for name in ("max_num_seqs", "max_num_batched_tokens"):
        assert arguments[name] == config["engine_kwargs"][name] > 0


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_batch_sizes_that_are_left_open_are_those_of_an_engine_that_ray_starts():
    """vLLM reads twice as many tokens at once for `LLM` as for Ray's engines, and the bare side had its own."""
    arguments, variables = bare_engine(engine_config(settings(), {"CPU": 2.0}))
    assert "max_num_batched_tokens" not in arguments
    environment = os.environ | variables | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", RESOLVE, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=180, check=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert json.loads(line.removeprefix("FOUND ")) == arguments | {"max_num_batched_tokens": 2048}


def test_a_wide_model_is_a_few_kilobytes_and_has_words_like_a_real_one(tmp_path):
    """28 GB were written of one of 7e9 parameters, with 700 words, so that head and sampling cost nothing."""
    from transformers import AutoConfig

    folder = make_wide_model(tmp_path, 4096, 32)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 100_000
    config = AutoConfig.from_pretrained(folder)
    assert (config.vocab_size, config.hidden_size, len(config.layer_types)) == (32_000, 4096, 32)
    assert config.architectures == ["Qwen2ForCausalLM"]
    assert settings(wide="4096x32").engine == {"load_format": "dummy"}
    given = settings(wide="4096x32", engine='{"max_num_seqs": 9}').engine
    assert given == {"load_format": "dummy", "max_num_seqs": 9}
