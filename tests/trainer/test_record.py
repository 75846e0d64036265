from __future__ import annotations

import builtins
import json
import math
import shutil
import threading

import pytest
import torch

from gex_pipeline.errors import GexError, MissingExtraError
from trainer.record import Beside, JsonLines, Lines, Rates, Record, TensorBoard, peak_memory


class Clock:
    """Time that moves when told."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


def steps_in(file):
    return [json.loads(line)["step"] for line in file.read_text().splitlines()]


def test_every_line_is_an_object_and_is_there_at_once(tmp_path):
    lines = JsonLines(tmp_path / "run" / "figures.jsonl")
    lines.write(0, {"loss": 1.5, "skipped": False, "granularity": "SVST"})
    lines.write(1, {"loss": math.nan, "grad_norm": math.inf})
    assert [json.loads(line) for line in (tmp_path / "run" / "figures.jsonl").read_text().splitlines()] == [
        {"step": 0, "loss": 1.5, "skipped": False, "granularity": "SVST"},
        {"step": 1, "loss": None, "grad_norm": None},
    ]
    lines.close()


def test_a_resume_cuts_off_what_it_will_write_again_and_a_torn_line(tmp_path):
    file = tmp_path / "figures.jsonl"
    lines = JsonLines(file)
    for step in range(8):
        lines.write(step, {"loss": float(step)})
    lines.close()
    with file.open("a") as torn:
        torn.write('{"step": 8, "lo')
    lines = JsonLines(file, next_step=5)
    assert steps_in(file) == [0, 1, 2, 3, 4]
    for step in range(5, 7):
        lines.write(step, {})
    lines.close()
    assert steps_in(file) == [0, 1, 2, 3, 4, 5, 6]


def test_a_torn_last_line_goes_also_when_its_step_comes_before(tmp_path):
    file = tmp_path / "figures.jsonl"
    file.write_text('{"step": 0}\n{"step": 1}')
    JsonLines(file, next_step=9).close()
    assert file.read_text() == '{"step": 0}\n'


def test_a_file_of_something_else_is_left_alone(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text('{"step": 0}\nbuy milk\n')
    with pytest.raises(GexError, match=r"line 2 of .*notes.txt is not a step"):
        JsonLines(file, next_step=9)
    assert file.read_text() == '{"step": 0}\nbuy milk\n'


def test_every_nth_step_is_due_and_all_sinks_get_it(tmp_path):
    said, file = [], tmp_path / "figures.jsonl"
    lines = Lines(said.append, lambda step, figures: f"{step}: {figures['loss']}")
    record = Record([lines, JsonLines(file)], every_steps=3)
    for step in range(7):
        if record.due(step):
            record.write(step, {"loss": 1.0})
    record.close()
    assert steps_in(file) == [2, 5]
    assert said == ["2: 1.0", "5: 1.0"]
    with pytest.raises(ValueError, match="every_steps is 0"):
        Record([], every_steps=0)


def test_rates_are_counts_over_the_time_of_training():
    clock = Clock()
    rates = Rates(num_devices=2, peak_flops_per_s=1e12, clock=clock)
    for _ in range(2):
        with rates.waiting():
            clock.now_s += 1.0
        clock.now_s += 4.0
        rates.count(num_samples=512, num_frames=512 * 16, flops=6e12)
    with rates.excluded():
        clock.now_s += 1000.0
    assert rates.figures() == {
        "samples_per_s": 102.4,
        "frames_per_s": 1638.4,
        "data_wait_share": 0.2,
        "mfu": 0.6,
        "mfu_peak_flops_per_s": 1e12,
    }
    clock.now_s += 2.0
    rates.count(num_samples=10, num_frames=10)
    assert rates.figures()["samples_per_s"] == 5.0


def test_without_a_stated_peak_there_is_no_utilisation():
    clock = Clock()
    rates = Rates(clock=clock)
    clock.now_s += 1.0
    assert rates.figures() == {"samples_per_s": 0.0, "frames_per_s": 0.0, "data_wait_share": 0.0}
    with pytest.raises(ValueError, match="peak is 0"):
        Rates(peak_flops_per_s=0)


def test_the_hosts_peak_memory_is_in_bytes():
    held = bytearray(64 << 20)
    held[::4096] = b"x" * len(held[::4096])
    assert 64 << 20 < peak_memory()["peak_host_bytes"] < 1 << 40
    assert list(peak_memory(torch.device("cpu"))) == ["peak_host_bytes"]


def test_tensorboard_has_the_numbers_of_the_last_course_only(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for next_step, loss in ((0, 1.0), (3, 2.0)):
        board = TensorBoard(tmp_path, next_step=next_step)
        for step in range(next_step, 5):
            board.write(step, {"loss": loss, "granularity": "SVST"})
        board.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert events.Tags()["scalars"] == ["loss"]
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        (0, 1.0), (1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)
    ]  # fmt: skip


def test_a_board_that_cannot_be_written_any_more_is_said_once_and_the_lines_go_on(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # TensorBoard writes in a thread of its own
    told: list[str] = []
    lines = JsonLines(tmp_path / "figures.jsonl")
    record = Record([Beside("TensorBoard", TensorBoard(tmp_path / "board"), told.append), lines])
    record.write(0, {"loss": 1.0})
    assert told == []
    shutil.rmtree(tmp_path / "board")
    for step in range(1, 100):  # its thread may take some until it says so
        record.write(step, {"loss": 1.0})
    record.close()
    assert [line.partition(": TensorBoard gets no more figures: ")[0] for line in told] == ["warning"]
    assert steps_in(tmp_path / "figures.jsonl") == list(range(100))


def test_tensorboard_that_is_not_installed_says_how_to_get_it(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("torch.utils.tensorboard"):
            raise ModuleNotFoundError("No module named 'tensorboard'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        MissingExtraError, match=r"tensorboard is not installed.*-c constraints.txt -e .\.\[tensorboard\]"
    ):
        TensorBoard(tmp_path)
