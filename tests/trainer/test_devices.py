"""Which device a process takes, by what torch says of GPUs."""

from __future__ import annotations

import pytest
import torch

from trainer import train
from trainer.processes import joined


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
