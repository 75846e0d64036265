"""How much longer inference takes with the IAM than with mean pooling, over the same towers.

Random weights in the sizes of ViT-B/32, one text a video, everything on the device; trainer.cost says what is timed
and how. The median over rounds is shown with its range. The IAM runs with the same number of passes in both branches.
Beside it stand the ratio of operations and the ratio made of parts that are timed apart. On a CPU the clock is this
process's processor time, on a GPU the wall after a synchronisation. Paper: GEXIA figure 5, at most 3.3 % more at
#iter = 3: on a CPU by parts, since the whole scatters by more than that; on a GPU whole, since a part timed apart shows
the launches of its many small kernels, which otherwise hide behind the towers' work. Exits with 1 when an embedding is
no unit vector, or differs between two rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys

import torch

from trainer.cost import TOWERS, Load, Run, Subject, Timing, autocast, make_sides, measure, subject_of
from trainer.settings import shipped_names

GOAL = 0.033
GOAL_N_ITER = 3
UNIT_TOLERANCE = 1e-3


def wrong_embeddings(subject: Subject, load: Load, device: torch.device) -> list[str]:
    """What is no unit vector, or not the same twice."""
    heads: dict[str, Run] = {name: run for name, run in make_sides(subject, load, device)[1].items() if name != TOWERS}
    wrong = []
    with torch.inference_mode(), autocast(device):
        for name, run in heads.items():
            for branch, first, second in zip(("video", "text"), run(), run(), strict=True):
                if (first.float().norm(dim=-1) - 1).abs().max() > UNIT_TOLERANCE:
                    wrong.append(f"{subject.name} {name}: a {branch} embedding is no unit vector")
                if not torch.allclose(first, second, atol=1e-3):
                    wrong.append(f"{subject.name} {name}: {branch} embeddings differ between two runs")
    return wrong


def show(name: str, timing: Timing, *, on_gpu: bool) -> None:
    """A line for each number of passes; whether the goal is met is said of what is more certain on the device."""
    load = timing.load
    print(f"{name}: mean pooling {timing.pooling_s:.4f} s, {load.num_videos} x {load.num_frames}")
    for ratio in timing.ratios:
        whole = statistics.median(ratio.whole)
        met = "met" if (whole if on_gpu else ratio.by_parts) <= GOAL else "MISSED"
        goal = f"   goal {GOAL:.1%}: {met} {'whole' if on_gpu else 'by parts'}" if ratio.n_iter == GOAL_N_ITER else ""
        print(
            f"  n_iter {ratio.n_iter}: {whole:+7.1%} whole"
            f" ({min(ratio.whole):+.1%} to {max(ratio.whole):+.1%})"
            f"   {ratio.by_parts:+6.1%} by parts   {ratio.flops:+6.1%} operations{goal}"
        )


def main() -> int:
    """Measure every shipped tree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, help="videos at a time (1 on a CPU, 64 on a GPU)")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--iterations", type=int, nargs="+", default=[0, 1, 2, 3, 4, 5])
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count")
    parser.add_argument("--trees", nargs="+", default=shipped_names())
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    num_videos = options.videos or (64 if device.type == "cuda" else 1)
    load = Load(num_videos, options.frames, tuple(options.iterations), options.repeats)
    print(f"torch {torch.__version__} on {torch.cuda.get_device_name() if device.type == 'cuda' else 'the CPU'}")
    wrong = []
    for name in options.trees:
        subject = subject_of(name)
        wrong += wrong_embeddings(subject, load, device)
        show(name, measure(subject, load, device), on_gpu=device.type == "cuda")
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
