"""What a person reads of a training."""

from __future__ import annotations

from trainer.telling import step_line

FIGURES = {
    "epoch": 0,
    "loss/LVLT": 1.23456,
    "grad_norm": 2.345,
    "temperature": 0.06987,
    "learning_rate/towers": 5e-6,
    "learning_rate/rest": 5e-4,
    "samples_per_s": 251.4,
    "frames_per_s": 8044.8,
    "data_wait_share": 0.034,
    "num_damaged": 0,
    "num_skipped_steps": 0,
    "truncated_share/LVLT": 0.5,
    "without_negatives_share/LVLT": 0.25,
    "peak_host_bytes": 3_210_000_000,
}
WHOLE = (
    "step 8/48  LVLT 1.235  LVLT 25% without negatives  gradient 2.3  temperature 0.070  towers' rate 5.0e-06  "
    "rate 5.0e-04  251 samples/s  8045 frames/s  waiting 3%"
)


def test_the_line_of_a_step_holds_its_figures():
    assert step_line(7, FIGURES, num_steps=48) == f"{WHOLE}  3.2 GB"


def test_on_a_gpu_it_holds_the_utilisation_and_the_memory_of_that():
    on_gpu = {**FIGURES, "mfu": 0.4321, "mfu_peak_flops_per_s": 989e12, "peak_device_bytes": 70_300_000_000}
    assert step_line(7, on_gpu, num_steps=48) == f"{WHOLE}  MFU 43.2%  70.3 GB"


def test_what_went_wrong_stands_at_the_end():
    damaged = [{"granularity": "IT", "key": name, "reason": "an image\ncannot be decoded"} for name in "ab"]
    wrong = {**FIGURES, "num_skipped_steps": 1, "num_damaged": 2, "damaged": damaged}
    assert step_line(7, wrong, num_steps=48) == (
        f"{WHOLE}  3.2 GB  1 step skipped  2 damaged, first a: an image cannot be decoded"
    )
