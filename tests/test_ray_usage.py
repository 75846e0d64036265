"""What is held on a cluster that others use too. The figures are a list's here; tests/end_to_end asks a Ray."""

from __future__ import annotations

import time

import pytest

from gex_pipeline import ray_usage
from gex_pipeline.ray_usage import Held, leave_out_others


@pytest.fixture
def held(monkeypatch):
    """Count while the cluster says these figures one after the other; the last one stays. Returns CPU-seconds."""
    step_s = 0.02
    monkeypatch.setattr(ray_usage, "_OTHERS", {"CPU": 0.0, "GPU": 0.0})
    monkeypatch.setattr(ray_usage, "_EVERY_S", step_s)

    def count(*figures: float | None) -> tuple[float, float]:
        left = list(figures)

        def now():
            cpus = left.pop(0) if len(left) > 1 else left[0]
            return None if cpus is None else {"CPU": cpus, "GPU": 0.0}

        monkeypatch.setattr(ray_usage, "_held_now", now)
        leave_out_others()
        started_s = time.monotonic()
        with Held() as found:
            time.sleep(step_s * 20)
        return found.cpu_s, time.monotonic() - started_s

    return count


def test_what_a_run_takes_after_others_have_let_go_is_counted(held):
    counted, seconds = held(8.0, 8.0, 0.0, 8.0)
    assert 8 * seconds * 0.25 < counted < 8 * seconds


def test_others_that_let_go_are_not_counted_as_the_run_s(held):
    assert held(8.0, 8.0, 4.0, 0.0)[0] == 0


def test_what_a_run_takes_beside_others_is_counted(held):
    counted, seconds = held(8.0, 8.0, 10.0)
    assert 2 * seconds * 0.25 < counted < 2 * seconds


def test_a_cluster_that_does_not_answer_once_says_nothing_of_others(held):
    assert held(8.0, 8.0, None, 8.0)[0] == 0


def test_a_cluster_that_does_not_answer_at_first_is_taken_for_one_without_others(held):
    counted, seconds = held(None, 2.0)
    assert 2 * seconds * 0.25 < counted < 2 * seconds * 1.1


def test_what_is_held_since_the_last_look_is_counted_when_a_block_ends(held, monkeypatch):
    monkeypatch.setattr(ray_usage, "_EVERY_S", 60.0)  # no look between beginning and end
    counted, seconds = held(0.0, 3.0)
    assert 3 * 0.4 <= counted < 3 * seconds
