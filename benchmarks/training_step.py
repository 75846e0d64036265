r"""Training as `gex train` runs it against the plain step: the same model and batches, without loader and bookkeeping.

Frame shards of drawn noise are written by the real writers, read by the real loader. Both sides take turns. Told are
samples a second by granularity, the ratio, the share of time that waited for data, and utilisation where the device's
peak is known (or given). Towers are ViT-B/32 with random weights; --small takes a model that a CPU can train.
What the workers read ahead while the plain steps ran is thrown away, and the steps that are timed are whole turns of
the workers: the ratio is that of a training that goes on for hours. Exits with 1 when a loss is not finite, or when
the batches that were timed are not the whole ones of the steps, in order.

    python benchmarks/training_step.py --small
    # on an H100 with 16 cores; batches of 64 as a GPU of eight has them, of 32 frames they take 7.4 GB of /dev/shm
    python benchmarks/training_step.py --batch-size 64 --precision bf16 --workers 12
"""

from __future__ import annotations

import argparse
import io
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig

sys.path.insert(0, str(Path(__file__).parent.parent))

from gex_pipeline import storage
from gex_pipeline.receipts import write_receipt
from gex_pipeline.shard_format import (
    FRAMES_EXTENSION,
    Receipt,
    SampleRecord,
    Segment,
    ShardWriter,
    make_key,
    shard_name,
)
from gex_pipeline.shards.manifest import GranularityEntry, Manifest, ShardEntry, Snapshot
from trainer.build import build
from trainer.figures import StepLog
from trainer.loader import Loader
from trainer.processes import joined
from trainer.run_data import open_data
from trainer.settings import ClipShape
from trainer.small_clip import write_small_clip
from trainer.steps import Prepared
from trainer.train import TrainingRun
from trainer.train_recipe import TrainRecipe, make_train_recipe

_WORDS = ("red", "blue", "small", "large", "circle", "square", "moves", "turns", "left", "right", "over", "a", "the")
_READ = {"SVST": (16, 1, 1, 10), "LVLT": (32, 3, 3, 45), "LVST": (32, 3, 1, 12), "IT": (1, 0, 1, 10)}


def write_dataset(output: Path, num_samples: int, short_side_px: int, num_frames: int) -> None:
    """Publish every granularity with so many samples of noise, in shards of 64."""
    random = np.random.default_rng(0)
    pictures = []
    for _ in range(16):
        noise = random.integers(0, 256, (short_side_px // 8, short_side_px // 8, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).resize((short_side_px, short_side_px)).save(buffer, "JPEG", quality=90)
        pictures.append(buffer.getvalue())
    entries = {}
    for name, (_, _, _, num_words) in _READ.items():
        shards = []
        for shard in range(-(-num_samples // 64)):
            records = []
            tar = output / name / f"{shard_name(name, shard)}.tar"
            tar.parent.mkdir(parents=True, exist_ok=True)
            with ShardWriter(tar) as writer:
                for number in range(shard * 64, min(num_samples, (shard + 1) * 64)):
                    clip = f"{name}{number}"
                    key = make_key(name, [clip])
                    run = [pictures[(number + at) % 16] for at in range(1 if name == "IT" else num_frames)]
                    span = writer.add_run(key, run)
                    text = " ".join(random.choice(_WORDS, num_words))
                    segment = Segment(clip, clip, 0.0, 10.0, 0.0, 10.0, text)
                    place = {
                        "media_uri": f"{name}/{tar.name}",
                        "media_offset_bytes": span.offset_bytes,
                        "media_size_bytes": span.size_bytes,
                        "media_extension": FRAMES_EXTENSION,
                    }
                    size = {"width_px": short_side_px, "height_px": short_side_px, "fps": 25.0, "duration_s": 10.0}
                    records.append(
                        SampleRecord(
                            key, name, clip, (clip,), (segment,), text, codec="h264", made_by="copy", **size, **place
                        )
                    )
            receipt = Receipt(name, shard, "noise", "noise", len(records), writer.num_bytes, writer.sha256)
            write_receipt(str(output / name / f"{shard_name(name, shard)}.parquet"), receipt, records)
            path = f"{name}/{tar.name}"
            shards.append(
                ShardEntry(path, path.replace(".tar", ".parquet"), len(records), writer.num_bytes, writer.sha256)
            )
        entries[name] = GranularityEntry("source", None, FRAMES_EXTENSION, tuple(shards), {})
    snapshot = Snapshot(0, "2026-01-01", "noise", {}, (), entries, (), (), {})
    storage.publish_bytes(Manifest("noise", (snapshot,)).to_json(), str(output / "dataset.json"))


def write_clip(folder: Path) -> None:
    """The shape of ViT-B/32, which is what transformers takes where nothing is said, and a tokenizer."""
    write_small_clip(folder, ClipShape(patch_px=32), [" ".join(_WORDS)], 224)
    CLIPConfig().save_pretrained(folder)


def recipe_of(folder: Path, arguments: argparse.Namespace, name: str) -> TrainRecipe:
    """One granularity's training."""
    num_frames, video, text, _ = _READ[name]
    model: dict = {"settings": "iam-recommended", "towers": {"clip": str(folder / "clip"), "weights": "random"}}
    image_px = 224
    if arguments.small:
        image_px, num_frames = 64, min(num_frames, 8)
        model = {
            "towers": {"shape": {"width": 128, "num_layers": 3, "max_tokens": 40}},
            "iam": {"num_embeddings": 16, "dim": 128, "num_heads": 4},
        }
    return make_train_recipe(
        {
            "output": str(folder / f"training-{name}"),
            "model": model,
            "data": {
                "dataset": str(folder / "data"),
                "batch_size": arguments.batch_size,
                "image_size_px": image_px,
                "num_workers": arguments.workers,
                "granularities": {
                    name: {"num_frames": num_frames, "n_iter_video": video, "n_iter_text": text, "weight": 1.0}
                },
            },
            "optim": {"precision": arguments.precision, "epochs": 1000},
            "parallel": {
                "piece_size": arguments.piece_size,
                "compile": arguments.compile,
                "activation_checkpointing": arguments.activation_checkpointing,
            },
            "record": {"peak_flops_per_s": arguments.peak_flops_per_s},
        }
    )


def measure(folder: Path, arguments: argparse.Namespace, name: str) -> dict:
    """Rounds of plain steps and of training, in turn."""
    recipe = recipe_of(folder, arguments, name)
    turn = max(recipe.data.num_workers, 1)
    num_steps = -(-arguments.steps // turn) * turn
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()  # or the peak would be that of the largest granularity so far
    with joined() as processes, open_data(recipe.data) as data:
        run = TrainingRun(recipe, data, build(recipe, data, processes), processes)
        log = StepLog(recipe, run.built, processes)
        with run.loader(range(10**6)) as loader:
            batch = run.task.prepare(next(loader))
            step = plain(run, batch, 0, arguments.warmup)
            plains, ours, figures, wrong = [], [], {}, []
            for _ in range(arguments.rounds):
                started_s = time.perf_counter()
                step = plain(run, batch, step, arguments.steps)
                plains.append((time.perf_counter() - started_s) / arguments.steps)
                step = settle(run, loader, log, step)
                log.figures(0)
                upcoming = run.next(loader, log)
                taken = []
                started_s = time.perf_counter()
                for _ in range(num_steps):
                    taken.append(shape_of(upcoming))
                    upcoming = run.step(step, upcoming, loader, log)
                    step += 1
                _finish()
                ours.append((time.perf_counter() - started_s) / num_steps)
                figures = log.figures(0)
                wrong += wrong_batches(recipe, name, taken) + wrong_figures(figures, name)
    size = arguments.batch_size
    return {
        "granularity": name,
        "plain_samples_per_s": size / statistics.median(plains),
        "samples_per_s": size / statistics.median(ours),
        "busy": statistics.median(one / two for one, two in zip(plains, ours, strict=True)),
        "data_wait_share": figures["data_wait_share"],
        "mfu": figures.get("mfu"),
        "peak_device_bytes": figures.get("peak_device_bytes"),
        "wrong": wrong,
    }


def settle(run: TrainingRun, loader: Loader, log: StepLog, step: int) -> int:
    """Bring the loader to where it is in the middle of a training; the next step.

    While the plain steps run, its workers fill all the room that they have: batches that would be timed and cost
    nothing. These are thrown away; then each worker gives one to a step that is not timed.
    """
    data = run.recipe.data
    for _ in range(data.num_workers * data.prefetch_batches):
        next(loader)
    upcoming = run.next(loader, log) if data.num_workers else None
    for _ in range(data.num_workers):
        upcoming = run.step(step, upcoming, loader, log)
        step += 1
    return step


def shape_of(batch: Prepared | None) -> tuple[Any, ...]:
    """Step, granularity and shape of a batch, without holding its memory."""
    return () if batch is None else (batch.step, batch.granularity, *batch.frames_BT3HW.shape)


def wrong_batches(recipe: TrainRecipe, name: str, taken: Sequence[tuple[Any, ...]]) -> list[str]:
    """What is not a whole batch of its step."""
    data = recipe.data
    shape = (data.batch_size, data.granularities[name].num_frames, 3, data.image_size_px, data.image_size_px)
    first = taken[0][0] if taken[0] else 0
    expected = [(first + number, name, *shape) for number in range(len(taken))]
    return [f"a batch is {one}; expected {two}" for one, two in zip(taken, expected, strict=True) if one != two]


def wrong_figures(figures: Mapping[str, Any], name: str) -> list[str]:
    """What tells that steps were not those of a training."""
    found = (math.isfinite(figures.get(f"loss/{name}", math.nan)), figures["num_skipped_steps"], figures["num_damaged"])
    return [] if found == (True, 0, 0) else [f"loss is finite, skipped steps, damaged samples: {found}"]


def plain(run: TrainingRun, batch: Prepared | None, step: int, num: int) -> int:
    """Forward, backward, optimiser; one batch that lies on the device already."""
    assert batch is not None
    for _ in range(num):
        loss = run.task.backward(batch)
        run.optimiser.step(step, loss)
        step += 1
    _finish()
    return step


def _finish() -> None:
    """Until the device has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> int:
    """Measure every granularity and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a model of 2 million weights, 64 px, 8 frames")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--piece-size", type=int)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--activation-checkpointing", action="store_true")
    parser.add_argument("--peak-flops-per-s", type=float)
    parser.add_argument("--granularity", action="append", choices=tuple(_READ))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gex-training-step-") as scratch:
        folder = Path(scratch)
        write_dataset(folder / "data", 256 if arguments.small else 512, 64 if arguments.small else 224, 32)
        write_clip(folder / "clip")
        wrong = []
        for name in arguments.granularity or _READ:
            found = measure(folder, arguments, name)
            wrong += found["wrong"]
            print(json.dumps({key: _rounded(value) for key, value in found.items()}), flush=True)
    return 1 if wrong else 0


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main())
