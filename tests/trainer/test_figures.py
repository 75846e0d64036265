"""What a training tells of its steps: figures of batches that were really prepared, by a clock that is set by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tests.trainer.tiny_models import draw_batch, settings_of, tiny_clip_config, tiny_model
from tests.trainer.tiny_recipes import tiny_recipe
from trainer import record
from trainer.build import Built
from trainer.figures import StepLog
from trainer.flops import model_flops
from trainer.optim import StepFigures
from trainer.processes import Processes
from trainer.steps import Prepared
from trainer.tokens import TextTokens

PEAK = 1e9


class Two(Processes):
    """This process and one whose numbers are given."""

    others = 0.0

    def sum(self, numbers):
        return [numbers[0] + self.others, *numbers[1:]]


def step_of(num_windows: int, num_rows: int = 4) -> Prepared:
    video, texts = draw_batch(num_rows, num_frames=2)
    tokens = TextTokens(texts.ids_BWL.repeat(1, num_windows, 1), texts.mask_BWL.repeat(1, num_windows, 1), texts[2])
    return Prepared(0, "LVLT", video, texts=tokens)


def flops_of(num_windows: int) -> int:
    counts = {"num_frames": 2, "n_iter_video": 3, "n_iter_text": 3, "num_windows": num_windows}
    return model_flops(settings_of(), tiny_clip_config(), **counts).training


@pytest.fixture
def log_of(monkeypatch, tmp_path):
    def make(processes):
        changes = {"record": {"peak_flops_per_s": PEAK}}
        model = tiny_model()
        built = Built(model, model, None, settings_of(), tiny_clip_config())
        return StepLog(tiny_recipe(tmp_path, tmp_path, changes), built, processes)

    clock = SimpleNamespace(now_s=0.0)
    monkeypatch.setattr(record, "time", SimpleNamespace(perf_counter=lambda: clock.now_s))
    return make, clock


def test_utilisation_counts_the_windows_that_the_texts_of_a_batch_have(log_of):
    """One window was counted whatever the text tower ran: with eight, images were told at a quarter of their share."""
    make, clock = log_of
    log, told = make(Processes(0, 1, torch.device("cpu"))), []
    for num_windows in (1, 4):
        log.add(step_of(num_windows), StepFigures(1.0, 1.0, {}, False))
        clock.now_s += 2.0
        told.append(log.figures(0)["mfu"])
    assert told == [4 * flops_of(1) / 2.0 / PEAK, 4 * flops_of(4) / 2.0 / PEAK]
    assert told[1] > told[0]


def test_utilisation_counts_what_each_process_has_of_them(log_of):
    """Texts of one process may be longer than those of another."""
    make, clock = log_of
    two = Two(0, 2, torch.device("cpu"))
    object.__setattr__(two, "others", 2.0 * flops_of(4))
    log = make(two)
    log.add(step_of(1, num_rows=2), StepFigures(1.0, 1.0, {}, False))
    clock.now_s += 1.0
    assert log.figures(0)["mfu"] == (2 * flops_of(1) + 2 * flops_of(4)) / (2 * PEAK)
