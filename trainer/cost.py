"""What a model costs: settings and CLIP's configuration in; parameters, operations and measured seconds out.

Operations are counted from shapes (trainer.flops). Time is measured with random weights of those shapes, which is as
long as with trained ones, against mean pooling over the same towers: CLIP4Clip's, where class tokens are projected,
made unit vectors and averaged, and the end token of the text is projected. Both sides run in turns, round by round; a
ratio is taken within its round. Beside it stands the ratio made of parts that are timed apart (towers once, each head
on the towers' features), which is steadier where the machine has other work. Downloads nothing.

Paper: GEXIA table 9 and figure 5.
"""

# Tensors: B videos, T frames, F = B * T frames, P features of one frame, M features of a video, L tokens, C their
# width, D embedding.

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from gex_pipeline.progress import progress
from trainer.data_settings import PAPER_GRANULARITIES, GranularitySettings
from trainer.flops import ModelFlops, image_tower_shape, model_flops, text_tower_shape, tower_flops
from trainer.model import VideoTextModel
from trainer.optim import computes_in_bf16
from trainer.pretrained import CLIP, Pretrained, find_model
from trainer.settings import ModelSettings, read_model_settings, shipped_names
from trainer.tokens import TextTokens
from trainer.towers import towers_of

Run = Callable[[], tuple[Tensor, Tensor]]

POOLING, TOWERS = "mean pooling", "towers"


@dataclass(frozen=True)
class Subject:
    """What the costs are of."""

    name: str
    settings: ModelSettings
    clip_config: Any
    """CLIPConfig of transformers."""
    granularities: Mapping[str, GranularitySettings]


def subject_of(source: str, clip: str | None = None) -> Subject:
    """A shipped tree, a TOML file with a table ``[model]``, or a trained model; `clip` is a folder with another CLIP.

    Settings without a folder of CLIP stand for the shape of ViT-B/32 and the paper's granularities.

    Raises:
        GexError: there is no such thing, or it cannot be read.
    """
    if source in shipped_names() or source.endswith(".toml"):
        try:
            settings = read_model_settings(source)
        except (OSError, ValueError) as error:
            raise GexError(f"{source!r} holds no settings of a model: {error}") from error
        if settings.towers.shape is not None and clip is None:
            raise GexError(f"{source!r} makes its CLIP out of a data set; name the model it trained, or give --clip")
        own = settings.towers.clip if Path(settings.towers.clip).is_dir() else None
        granularities = {name: GranularitySettings(**values) for name, values in PAPER_GRANULARITIES.items()}
        return Subject(Path(source).stem, settings, _clip_config(clip or own), granularities)
    if clip is not None:
        raise GexError(f"--clip goes with settings; {source!r} is not one of {', '.join(shipped_names())} nor a TOML")
    model = Pretrained.from_pretrained(source)
    return Subject(source, model.settings, _clip_config(storage.join(find_model(source), CLIP)), model.granularities)


def _clip_config(folder: str | None) -> Any:
    from transformers import CLIPConfig

    if folder is None:
        return CLIPConfig()  # whose defaults are ViT-B/32
    uri = storage.join(folder, "config.json")
    try:
        content = json.loads(storage.read_bytes(uri))
        if content.get("model_type") != "clip":
            raise GexError(f"{uri!r} describes a {content.get('model_type')!r}; expected a CLIP")
        return CLIPConfig.from_dict(content)
    except ValueError as error:
        raise GexError(f"{uri!r} is no configuration: {error}") from error


def flops_of(subject: Subject, granularity: GranularitySettings) -> ModelFlops:
    """Operations of one sample of a granularity."""
    return model_flops(
        subject.settings,
        subject.clip_config,
        num_frames=granularity.num_frames,
        n_iter_video=granularity.n_iter_video,
        n_iter_text=granularity.n_iter_text,
    )


def pooling_flops(clip_config: Any, num_frames: int) -> int:
    """Operations of mean pooling for one sample."""
    return num_frames * tower_flops(image_tower_shape(clip_config)) + tower_flops(text_tower_shape(clip_config))


def num_parameters(subject: Subject) -> dict[str, int]:
    """Parameters by part, largest first; what two parts share is counted once, under the first of them."""
    with torch.device("meta"):  # shapes without memory
        model = _build(subject)[0]
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = name.split(".")[0].replace("_", " ").replace("iam", "IAM").replace("logit scale", "temperature")
        counts[part] = counts.get(part, 0) + parameter.numel()
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


@dataclass(frozen=True)
class Load:
    """What is timed: so many videos of so many frames at a time, these numbers of passes, rounds that count."""

    num_videos: int = 1
    num_frames: int = 32
    iterations: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    repeats: int = 3


@dataclass(frozen=True)
class Ratio:
    """Inference with so many passes in both branches, as more than mean pooling, in shares of it."""

    n_iter: int
    seconds: float
    """Median of the whole, for all videos of the load."""
    whole: tuple[float, ...]
    """A round each."""
    by_parts: float
    flops: float


@dataclass(frozen=True)
class Timing:
    """What was measured."""

    load: Load
    pooling_s: float
    towers_s: float
    ratios: list[Ratio]


def measure(subject: Subject, load: Load, device: torch.device) -> Timing:
    """Time both sides with random weights."""
    whole, apart = make_sides(subject, load, device)
    progress().stage("time inference", (load.repeats + 1) * (len(whole) + len(apart)), "runs")
    with torch.inference_mode(), autocast(device):
        whole_s, apart_s = (rounds(sides, load.repeats, Clock(device)) for sides in (whole, apart))
    towers_s = statistics.median(apart_s[TOWERS])
    parts_s = {name: towers_s + statistics.median(seconds) for name, seconds in apart_s.items()}
    ratios = [
        Ratio(
            n,
            statistics.median(whole_s[f"{n}"]),
            tuple(ours / pooled - 1 for ours, pooled in zip(whole_s[f"{n}"], whole_s[POOLING], strict=True)),
            parts_s[f"{n}"] / parts_s[POOLING] - 1,
            flops_ratio(subject, load.num_frames, n),
        )
        for n in load.iterations
    ]
    return Timing(load, statistics.median(whole_s[POOLING]), towers_s, ratios)


def flops_ratio(subject: Subject, num_frames: int, n_iter: int) -> float:
    """More operations than mean pooling, as a share of those."""
    sample = GranularitySettings(num_frames=num_frames, n_iter_video=n_iter, n_iter_text=n_iter)
    return flops_of(subject, sample).forward / pooling_flops(subject.clip_config, num_frames) - 1


class MeanPooling(nn.Module):
    """The other side: CLIP's own embeddings, averaged over frames."""

    def __init__(self, clip: Any, model: VideoTextModel) -> None:
        super().__init__()
        projected = model.image_tower.projection is not None
        # towers that project already leave nothing to project
        self.image = nn.Identity() if projected else clip.visual_projection
        self.text = nn.Identity() if projected else clip.text_projection

    def heads(self, image_FPC: Tensor, text_FLC: Tensor, num_videos: int) -> tuple[Tensor, Tensor]:
        """Embeddings (B, D) of both branches from the towers' features."""
        frames_BTD = functional.normalize(self.image(image_FPC[:, 0]).unflatten(0, (num_videos, -1)), dim=-1)
        text_BD = self.text(text_FLC[:, -1])
        return functional.normalize(frames_BTD.mean(1), dim=-1), functional.normalize(text_BD, dim=-1)


class Clock:
    """Seconds of one call: of this process's processors on a CPU, of the wall on a GPU."""

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


def make_sides(subject: Subject, load: Load, device: torch.device) -> tuple[dict[str, Run], dict[str, Run]]:
    """By name (a number of passes, or mean pooling), what is timed whole and what is timed apart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, clip = _build(subject)
        model.to(device).eval()
        pooling = MeanPooling(clip.to(device), model)
        video, texts = _inputs(subject, load)
    video, texts = video.to(device), texts.to(device)

    def towers() -> tuple[Tensor, Tensor]:
        return model.image_tower(video.flatten(0, 1)), model.text_tower(texts.ids_BWL.flatten(0, 1))

    with torch.inference_mode(), autocast(device):
        image_FPC, text_FLC = towers()
    features_BTPC = image_FPC.unflatten(0, (load.num_videos, -1))
    mask_BM = texts.mask_BWL.flatten(1) if model.mask_padding else None

    def iam_heads(n_iter: int) -> tuple[Tensor, Tensor]:
        features = features_BTPC if model.temporal_position is None else model.temporal_position(features_BTPC)
        video_BD = model.video_iam.pool(model.video_iam(features.flatten(1, 2), n_iter))
        text_BD = model.text_iam.pool(model.text_iam(text_FLC, n_iter, mask_BM))
        return functional.normalize(video_BD, dim=-1), functional.normalize(text_BD, dim=-1)

    whole: dict[str, Run] = {POOLING: lambda: pooling.heads(*towers(), load.num_videos)}
    apart: dict[str, Run] = {TOWERS: towers, POOLING: lambda: pooling.heads(image_FPC, text_FLC, load.num_videos)}
    for n in load.iterations:
        whole[f"{n}"] = lambda n=n: (model.encode_video(video, n), model.encode_text(texts, n))  # type: ignore[misc]
        apart[f"{n}"] = lambda n=n: iam_heads(n)  # type: ignore[misc]
    return whole, apart


def autocast(device: torch.device) -> Any:
    """bf16 on a GPU that has it, 32 bits elsewhere."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=computes_in_bf16(device))


def rounds(sides: Mapping[str, Run], repeats: int, clock: Clock) -> dict[str, list[float]]:
    """Seconds of each side in each round; every other round runs backwards. One round before them is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number, name in _turns(list(sides), repeats + 1):
        took = clock.time(sides[name])
        progress().advance(1)
        if number:
            seconds[name].append(took)
    return seconds


def _turns(names: Sequence[str], num_rounds: int) -> Iterator[tuple[int, str]]:
    for number in range(num_rounds):
        for name in names[:: 1 if number % 2 else -1]:
            yield number, name


def _build(subject: Subject) -> tuple[VideoTextModel, Any]:
    from transformers import CLIPModel

    clip = CLIPModel(subject.clip_config)
    return VideoTextModel(subject.settings, towers_of(clip, subject.settings.towers)), clip


def _inputs(subject: Subject, load: Load) -> tuple[Tensor, TextTokens]:
    """Random videos, and random texts that fill one window."""
    side_px = subject.clip_config.vision_config.image_size
    text = subject.clip_config.text_config
    shape = (load.num_videos, load.num_frames, 3, side_px, side_px)
    video = torch.randint(0, 256, shape, dtype=torch.uint8)
    ids = torch.randint(0, text.vocab_size, (load.num_videos, 1, text.max_position_embeddings))
    return video, TextTokens(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros(load.num_videos).bool())
