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

from benchmarks.vllm_stage import (
    TINY,
    Side,
    _settings,
    bare_engine,
    differences,
    draw_requests,
    least_ratio,
    make_tiny_model,
    make_wide_model,
    with_batch_sizes,
)
from gex_pipeline.summarize.prompt import build_messages
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


@pytest.mark.parametrize("make", [make_tiny_model, lambda folder: make_wide_model(folder, 512, 8)])
def test_prompts_are_the_stages_whole_ones(tmp_path, make):
    """Both models were handed the lines of captions alone, a ninth of the tokens and with nothing in common."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(make(tmp_path))
    asked = [build_messages(request, settings()) for request in draw_requests(2)]
    prompts = [tokenizer.apply_chat_template(one, tokenize=False, add_generation_prompt=True) for one in asked]
    for messages, prompt in zip(asked, prompts, strict=True):
        told = "".join(f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in messages)
        assert prompt == f"{told}<|im_start|>assistant\n"
    assert [one["role"] for one in asked[0]] == ["system", "user", "assistant", "user"]
    tokens = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    assert min(map(len, tokens)) > 900
    assert tokens[0][:800] == tokens[1][:800]


def side(num_other=0, **change):
    texts = {f"k{n}": "other" if n < num_other else "same" for n in range(200)}
    return Side(**{"num_answers": 200, "num_prompt_tokens": 9000, "num_generated_tokens": 4000} | change, digests=texts)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"num_generated_tokens": 4040}, []),
        ({"num_other": 1}, ["1 of 200 answers are other texts"]),
        ({"num_generated_tokens": 3959}, ["3959 and 4000 tokens of answers"]),
        ({"num_prompt_tokens": 8999}, ["8999 and 9000 tokens of prompts"]),
        ({"num_answers": 199}, ["200 requests, 199 and 200 answers"]),
    ],
)
def test_sides_that_did_other_work_are_not_compared(change, said):
    """A stage that cut its answers short was the quicker one."""
    times = {"startup_s": 1.0, "answering_s": 1.0}
    assert differences(side(**change, **times), side(**times), 200, on_gpu=False) == said
    on_gpu = [text for text in said if "texts" not in text]  # other batches round otherwise there
    assert differences(side(**change, **times), side(**times), 200, on_gpu=True) == on_gpu


def test_a_gpus_goal_is_the_higher_one_where_none_is_given():
    assert [least_ratio(None, on_gpu=on_gpu) for on_gpu in (False, True)] == [0.9, 0.95]
    assert least_ratio(0.0, on_gpu=True) == 0


def test_a_wide_model_is_a_few_kilobytes_and_has_words_like_a_real_one(tmp_path):
    """28 GB were written of one of 7e9 parameters, with 700 words, so that head and sampling cost nothing."""
    from transformers import AutoConfig

    folder = make_wide_model(tmp_path, 4096, 32)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 100_000
    config = AutoConfig.from_pretrained(folder)
    assert (config.vocab_size, config.hidden_size, len(config.layer_types)) == (32_000, 4096, 32)
    assert config.max_position_embeddings == 2048
    assert config.architectures == ["Qwen2ForCausalLM"]
    assert settings(wide="4096x32").engine == {"load_format": "dummy"}
    given = settings(wide="4096x32", engine='{"max_num_seqs": 9}').engine
    assert given == {"load_format": "dummy", "max_num_seqs": 9}
