"""How much longer inference takes with the IAM than with mean pooling, over the same towers.

Random weights in the sizes of ViT-B/32, one text a video, everything on the device. Both sides run in turns, round by
round; a ratio is taken within its round, and the median over rounds is shown with its range. Mean pooling is
CLIP4Clip's: class tokens projected, made unit vectors, averaged; the end token of the text projected. The IAM runs
with the same number of passes in both branches. Beside it stand the ratio of operations (trainer.flops) and the ratio
made of parts that are timed apart (towers once, each head on the towers' features), which is steadier where the
machine has other work. On a CPU the clock is this process's processor time, on a GPU the wall after a synchronisation.
Paper: GEXIA figure 5, at most 3.3 % more at #iter = 3.
Exits with 1 when an embedding is no unit vector, or differs between two rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel

from trainer.flops import image_tower_shape, model_flops, text_tower_shape, tower_flops
from trainer.model import VideoTextModel
from trainer.settings import read_model_settings, shipped_names
from trainer.tokens import TextTokens
from trainer.towers import towers_of

GOAL = 0.033
GOAL_N_ITER = 3
UNIT_TOLERANCE = 1e-3

Run = Callable[[], tuple[Tensor, Tensor]]


class MeanPooling(nn.Module):
    """The other side: CLIP's own embeddings, averaged over frames."""

    def __init__(self, clip: CLIPModel, model: VideoTextModel) -> None:
        super().__init__()
        self.model, self.image, self.text = model, clip.visual_projection, clip.text_projection

    def heads(self, image_FPC: Tensor, text_FLC: Tensor, videos: int) -> tuple[Tensor, Tensor]:
        """Embeddings (B, D) of both branches from the towers' features."""
        frames_BTD = functional.normalize(self.image(image_FPC[:, 0]).unflatten(0, (videos, -1)), dim=-1)
        text_BD = self.text(text_FLC[:, -1])
        return functional.normalize(frames_BTD.mean(1), dim=-1), functional.normalize(text_BD, dim=-1)


class Clock:
    """Seconds of one call: of the processor on a CPU, of the wall on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"

    def time(self, run: Callable[[], object]) -> float:
        """Run once, with all of its work done before the clock stops."""
        started = self._now()
        run()
        return self._now() - started

    def _now(self) -> float:
        if not self.on_gpu:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def make_sides(name: str, options: argparse.Namespace, device: torch.device) -> tuple[dict[str, Run], dict[str, Run]]:
    """By name, what is timed whole and what is timed apart."""
    torch.manual_seed(0)
    settings, clip = read_model_settings(name), CLIPModel(CLIPConfig())
    model = VideoTextModel(settings, towers_of(clip, settings.towers)).to(device).eval()
    pooling = MeanPooling(clip.to(device), model)
    num_videos = options.videos
    video = torch.randint(0, 256, (num_videos, options.frames, 3, 224, 224), dtype=torch.uint8, device=device)
    ids = torch.randint(0, 49000, (num_videos, 1, 77), device=device)
    texts = TextTokens(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros(num_videos, dtype=torch.bool))

    def towers() -> tuple[Tensor, Tensor]:
        return model.image_tower(video.flatten(0, 1)), model.text_tower(texts.ids_BWL.flatten(0, 1))

    with torch.inference_mode(), autocast(device):
        image_FPC, text_FLC = towers()
    features_BMC = image_FPC.unflatten(0, (num_videos, -1)).flatten(1, 2)
    mask_BM = texts.mask_BWL.flatten(1) if settings.towers.mask_padding else None

    def iam_heads(n_iter: int) -> tuple[Tensor, Tensor]:
        features = features_BMC
        if model.temporal_position is not None:
            features = model.temporal_position(features.unflatten(1, (options.frames, -1))).flatten(1, 2)
        video_BD = model.video_iam.pool(model.video_iam(features, n_iter))
        text_BD = model.text_iam.pool(model.text_iam(text_FLC, n_iter, mask_BM))
        return functional.normalize(video_BD, dim=-1), functional.normalize(text_BD, dim=-1)

    whole: dict[str, Run] = {"mean pooling": lambda: pooling.heads(*towers(), num_videos)}
    apart: dict[str, Run] = {"towers": towers, "mean pooling": lambda: pooling.heads(image_FPC, text_FLC, num_videos)}
    for n in options.iterations:
        whole[f"{n}"] = lambda n=n: (model.encode_video(video, n), model.encode_text(texts, n))
        apart[f"{n}"] = lambda n=n: iam_heads(n)
    return whole, apart


def autocast(device: torch.device) -> torch.autocast:
    """bf16 on a GPU, 32 bits elsewhere."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def rounds(sides: dict[str, Run], repeats: int, clock: Clock) -> dict[str, list[float]]:
    """Seconds of each side in each round; every other round runs backwards. One round before them is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(repeats + 1):
        for name in list(sides)[:: 1 if number % 2 else -1]:
            took = clock.time(sides[name])
            if number:
                seconds[name].append(took)
    return seconds


def wrong_embeddings(sides: dict[str, Run]) -> list[str]:
    """What is no unit vector, or not the same twice."""
    wrong = []
    for name, run in sides.items():
        for branch, first, second in zip(("video", "text"), run(), run(), strict=True):
            if (first.float().norm(dim=-1) - 1).abs().max() > UNIT_TOLERANCE:
                wrong.append(f"{name}: a {branch} embedding is no unit vector")
            if not torch.allclose(first, second, atol=1e-3):
                wrong.append(f"{name}: {branch} embeddings differ between two runs")
    return wrong


def flops_ratio(name: str, num_frames: int, n_iter: int) -> float:
    """More operations than mean pooling, as a share of those."""
    config, settings = CLIPConfig(), read_model_settings(name)
    ours = model_flops(settings, config, num_frames=num_frames, n_iter_video=n_iter, n_iter_text=n_iter).forward
    pooled = num_frames * tower_flops(image_tower_shape(config)) + tower_flops(text_tower_shape(config))
    return ours / pooled - 1


def show(name: str, whole: dict[str, list[float]], apart: dict[str, list[float]], options: argparse.Namespace) -> None:
    """A line for each number of passes."""
    tower_s = statistics.median(apart["towers"])
    pooled_s = tower_s + statistics.median(apart["mean pooling"])
    print(f"{name}: mean pooling {statistics.median(whole['mean pooling']):.4f} s, {options.videos} x {options.frames}")
    for n in options.iterations:
        ratios = [ours / pooled - 1 for ours, pooled in zip(whole[f"{n}"], whole["mean pooling"], strict=True)]
        parts = (tower_s + statistics.median(apart[f"{n}"])) / pooled_s - 1
        goal = f"   goal {GOAL:.1%}: {'met' if parts <= GOAL else 'MISSED'} by parts" if n == GOAL_N_ITER else ""
        print(
            f"  n_iter {n}: {statistics.median(ratios):+7.1%} whole ({min(ratios):+.1%} to {max(ratios):+.1%})"
            f"   {parts:+6.1%} by parts   {flops_ratio(name, options.frames, n):+6.1%} operations{goal}"
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
    options.videos = options.videos or (64 if device.type == "cuda" else 1)
    print(f"torch {torch.__version__} on {torch.cuda.get_device_name() if device.type == 'cuda' else 'the CPU'}")
    clock, wrong = Clock(device), []
    for name in options.trees:
        whole, apart = make_sides(name, options, device)
        with torch.inference_mode(), autocast(device):
            heads = {side: run for side, run in apart.items() if side != "towers"}
            wrong += [f"{name}: {line}" for line in wrong_embeddings(heads)]
            show(name, rounds(whole, options.repeats, clock), rounds(apart, options.repeats, clock), options)
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
