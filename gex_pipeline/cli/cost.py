"""``gex cost``: what a model costs in parameters, operations and time."""

from __future__ import annotations

import argparse
import statistics
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gex_pipeline.cli.show import say, say_json, table
from gex_pipeline.progress import LineProgress, shown_by
from gex_pipeline.stages.models import require_train_extra

if TYPE_CHECKING:
    from trainer.cost import Subject


def command(arguments: argparse.Namespace) -> int:
    """Count, measure and show."""
    require_train_extra()
    from trainer.cost import subject_of

    subject = subject_of(arguments.model, arguments.clip)
    content = _counted(subject)
    if not arguments.no_timing:
        content["timing"] = _measured(arguments, subject)
    if arguments.json:
        say_json(content)
    else:
        _show(content)
    return 0


def _counted(subject: Subject) -> dict[str, Any]:
    from trainer.cost import flops_of, num_parameters
    from trainer.flops import image_tower_shape, text_tower_shape, tower_flops

    rows = []
    for name, granularity in subject.granularities.items():
        flops = flops_of(subject, granularity)
        counted = {**asdict(flops), "forward": flops.forward, "training": flops.training, "per_frame": flops.per_frame}
        del counted["frozen"]
        rows.append({"granularity": name, **granularity.model_dump(exclude={"weight"}), **counted})
    config = subject.clip_config
    return {
        "model": subject.name,
        "parameters": num_parameters(subject),
        "image_tower_flops": tower_flops(image_tower_shape(config)),
        "text_tower_flops": tower_flops(text_tower_shape(config)),
        "flops": rows,
    }


def _measured(arguments: argparse.Namespace, subject: Subject) -> dict[str, Any]:
    import torch

    from trainer.cost import Load, measure

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    num_frames = max(granularity.num_frames for granularity in subject.granularities.values())
    load = Load(arguments.videos or (64 if device.type == "cuda" else 1), num_frames, repeats=arguments.repeats)
    with shown_by(LineProgress()):
        timing = measure(subject, load, device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"the CPU with {torch.get_num_threads()} threads"
    return {"device": name, **asdict(timing)}


def _show(content: dict[str, Any]) -> None:
    parameters = content["parameters"]
    shown = [*parameters.items(), ("all", sum(parameters.values()))]
    say(f"{content['model']}: parameters")
    table(("part", "parameters"), [(part, f"{count:,}") for part, count in shown], numbers=(1,))
    image, text = content["image_tower_flops"] / 1e9, content["text_tower_flops"] / 1e9
    say(f"GFLOP of a sample (a multiply-add is two); the towers alone: {image:.3f} a frame, {text:.3f} a text")
    names = ("image_tower", "video_iam", "text_tower", "text_iam", "forward", "per_frame", "training")
    rows = [
        (
            row["granularity"],
            str(row["num_frames"]),
            f"{row['n_iter_video']}-{row['n_iter_text']}",
            *(f"{row[name] / 1e9:,.2f}" for name in names),
        )
        for row in content["flops"]
    ]
    headings = ("granularity", "frames", "#iter", *(name.replace("_", " ").replace("iam", "IAM") for name in names))
    table(headings, rows, numbers=range(1, len(headings)))
    if "timing" in content:
        _show_timing(content["timing"])


def _show_timing(timing: dict[str, Any]) -> None:
    load = timing["load"]
    clock = "seconds of processor" if "CPU" in timing["device"] else "seconds"
    say(
        f"inference of {load['num_videos']} x {load['num_frames']} frames and as many texts on {timing['device']}, "
        f"{clock}, median of {load['repeats']}; mean pooling over the same towers: {timing['pooling_s']:.4f}"
    )
    rows = [
        (
            str(ratio["n_iter"]),
            f"{ratio['seconds']:.4f}",
            f"{statistics.median(ratio['whole']):+.1%}",
            f"{min(ratio['whole']):+.1%} to {max(ratio['whole']):+.1%}",
            f"{ratio['by_parts']:+.1%}",
            f"{ratio['flops']:+.1%}",
        )
        for ratio in timing["ratios"]
    ]
    headings = ("#iter", "seconds", "more than mean pooling", "rounds", "by parts timed apart", "operations")
    table(headings, rows, numbers=range(6))
