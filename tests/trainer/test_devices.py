"""Which device a process takes and says it takes, by what torch says of GPUs; and what it says of one too small."""

from __future__ import annotations

import os

import pytest
import torch

from gex_pipeline.errors import GexError
from tests.trainer.tiny_recipes import tiny_recipe
from trainer import steps, train
from trainer.processes import Processes, joined


@pytest.fixture
def gpus(monkeypatch):
    """Let torch report so many GPUs."""

    def report(number: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)

    return report


@pytest.mark.parametrize(("num_gpus", "use_gpu", "device"), [(8, True, "cuda:3"), (8, False, "cpu"), (0, True, "cpu")])
def test_a_process_takes_the_gpu_of_its_place_unless_it_has_none_of_its_own(gpus, num_gpus, use_gpu, device):
    gpus(num_gpus)
    with joined({"LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "4"}, use_gpu=use_gpu) as processes:
        assert str(processes.device) == device


def test_more_processes_than_gpus_are_told_in_one_sentence_a_process(gpus, monkeypatch, capsys):
    """Each of them had ended with a traceback."""
    gpus(1)
    for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        train.main(["recipe.toml"])
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "process 1: 2 processes are started on a machine with 1 GPUs; start one a GPU, or set CUDA_VISIBLE_DEVICES to "
        "nothing to train on the CPU\n"
    )


def test_a_process_whose_place_has_no_gpu_is_told_so_though_nobody_says_how_many_there_are(gpus):
    """Started by hand, without LOCAL_WORLD_SIZE, it had ended with "CUDA error: invalid device ordinal"."""
    gpus(1)
    with pytest.raises(GexError, match="2 processes are started on a machine with 1 GPUs"), joined({"LOCAL_RANK": "1"}):
        pass


def test_no_test_sees_a_gpu():
    """On a machine with one, exact comparisons would be made on it, and two processes would want two."""
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert not torch.cuda.is_available()


@pytest.mark.parametrize(
    ("built_for", "hidden", "use_gpu", "is_warned"),
    [("12.8", None, True, True), ("12.8", "", True, False), ("12.8", None, False, False), (None, None, True, False)],
)
def test_a_pytorch_for_cuda_without_a_gpu_is_warned_of_unless_the_cpu_is_meant(
    monkeypatch, built_for, hidden, use_gpu, is_warned
):
    """With a driver that was too old, a training had gone on on the CPU without a word."""
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    with joined({}, use_gpu=use_gpu) as processes:
        said = processes.describe_device()
    warning = "warning: training on the CPU, since PyTorch, built for CUDA 12.8, finds no GPU that it can use; "
    assert said.startswith(warning) == is_warned
    assert is_warned or said == "training on the CPU"


def test_a_gpu_is_told_by_its_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA H100 {device.index}")
    assert Processes(0, 1, torch.device("cuda", 3)).describe_device() == "training on NVIDIA H100 3"


def test_a_training_says_what_it_runs_on_and_of_a_gpu_that_is_too_small_what_to_set(
    numbered_output, tmp_path, monkeypatch
):
    """It had been a traceback, and under Ray four of them that nobody saw."""
    text = (
        "CUDA out of memory. Tried to allocate 9.19 GiB. GPU 0 has a total capacity of 79.11 GiB of which 5.20 GiB is "
        "free. Including non-PyTorch memory, this process has 73.90 GiB memory in use."
    )

    def backward(*_):
        raise torch.OutOfMemoryError(text)

    monkeypatch.setattr(steps.Contrastive, "backward", backward)
    recipe = tiny_recipe(numbered_output, tmp_path / "training", {"parallel": {"piece_size": 3}})
    said: list[str] = []
    with pytest.raises(GexError) as caught, joined({}) as processes:
        train.train(recipe, processes, said.append)
    assert str(caught.value) == (
        "a step does not fit into the GPU's memory (CUDA out of memory. Tried to allocate 9.19 GiB); in [parallel] "
        "lower piece_size (now 3) or set activation_checkpointing = true (now false), or lower data.batch_size (now 4)"
    )
    assert not caught.value.transient
    assert said.count("training on the CPU") == 1
    whole = tiny_recipe(numbered_output, tmp_path / "training")
    with pytest.raises(GexError, match=r"piece_size \(now not set: all of a batch at once\)"), train._in_memory(whole):
        backward()
