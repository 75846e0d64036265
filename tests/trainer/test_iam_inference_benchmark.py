"""Whether the paper's goal is met is said of what a device times well: parts on a CPU, the whole on a GPU."""

from __future__ import annotations

import pytest

from benchmarks import iam_inference
from trainer.cost import Load, Ratio, Timing


@pytest.mark.parametrize(("on_gpu", "said"), [(False, "MISSED by parts"), (True, "met whole")])
def test_launches_that_hide_behind_the_towers_do_not_miss_the_goal_on_a_gpu(capsys, on_gpu, said):
    """Parts are timed between two synchronisations, which show every launch: on a GPU they were judged nevertheless."""
    ratio = Ratio(iam_inference.GOAL_N_ITER, seconds=1.03, whole=(0.02, 0.03, 0.9), by_parts=0.2, flops=0.03)
    iam_inference.show("tree", Timing(Load(), 1.0, 0.9, [ratio]), on_gpu=on_gpu)
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith("  n_iter 3:   +3.0% whole (+2.0% to +90.0%)") and line.endswith(f"goal 3.3%: {said}")
