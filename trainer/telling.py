"""A training told to a person: the figures of some steps as one line, those of an evaluation as a few."""

from __future__ import annotations

from collections.abc import Mapping

from trainer.record import Figure

_HELD_OUT = "held_out/"
WITHOUT_NEGATIVES = "without_negatives_share/"
"""Before the name of a granularity: the share of its samples that had no negative in their batch."""


def step_line(step: int, figures: Mapping[str, Figure], *, num_steps: int) -> str:
    """What a person wants to see of the figures of a step (from 0); of those of an evaluation, several lines."""
    held_out = {name[len(_HELD_OUT) :]: value for name, value in figures.items() if name.startswith(_HELD_OUT)}
    if held_out:
        return "\n".join(evaluation_lines(held_out))
    words = [f"step {step + 1}/{num_steps}"]
    known = {name: value for name, value in figures.items() if isinstance(value, int | float)}
    words += [f"{name[5:]} {value:.3f}" for name, value in known.items() if name.startswith("loss/")]
    alone = ((name.removeprefix(WITHOUT_NEGATIVES), share) for name, share in known.items() if _is_alone(name, share))
    words += [f"{name} {share:.0%} without negatives" for name, share in alone]
    for name, form in _FORMS:
        if name in known:
            words.append(form.format(known[name]))
    words += [f"{known[name] / 1e9:.1f} GB" for name in _MEMORY if name in known][:1]
    if num_skipped := known.get("num_skipped_steps"):
        words.append(f"{num_skipped:.0f} {'step' if num_skipped == 1 else 'steps'} skipped")
    damaged = figures.get("damaged")
    if isinstance(damaged, list):
        words.append(
            f"{len(damaged)} damaged, first {damaged[0]['key']}: {' '.join(damaged[0]['reason'].split())[:200]}"
        )
    return "  ".join(words)


_MEMORY = ("peak_device_bytes", "peak_host_bytes")  # of a process; on a GPU it is the GPU's that runs out
_FORMS = (
    ("grad_norm", "gradient {:.2g}"),
    ("temperature", "temperature {:.3f}"),
    ("learning_rate/towers", "towers' rate {:.1e}"),
    ("learning_rate/rest", "rate {:.1e}"),
    ("samples_per_s", "{:.0f} samples/s"),
    ("frames_per_s", "{:.0f} frames/s"),
    ("data_wait_share", "waiting {:.0%}"),
    ("mfu", "MFU {:.1%}"),
)


def untaught(figures: Mapping[str, Figure]) -> dict[str, str]:
    """Of granularities of which no sample had a negative, a sentence that says why nothing is learned from them."""
    why = (
        "no sample had a negative in its batch, so loss and gradient are 0 and nothing is learned from them: a batch "
        "is of one sample, or its samples share source videos and mask_same_source keeps them apart. Raise batch_size, "
        "set mask_same_source = false, or leave out"
    )
    names = [name for name, share in figures.items() if name.startswith(WITHOUT_NEGATIVES) and share == 1]
    return {name: f"{name}: {why} {name}" for name in (one.removeprefix(WITHOUT_NEGATIVES) for one in names)}


def _is_alone(name: str, share: float) -> bool:
    return name.startswith(WITHOUT_NEGATIVES) and share > 0


def as_held_out(figures: Mapping[str, float]) -> dict[str, Figure]:
    """The figures of an evaluation among those of training, under names of their own."""
    return {f"{_HELD_OUT}{name}": value for name, value in figures.items()}


def evaluation_lines(figures: Mapping[str, Figure]) -> list[str]:
    """A line a granularity and direction."""
    lines = []
    for name in dict.fromkeys(key.split("/")[0] for key in figures):
        own = {
            key.split("/")[1]: value
            for key, value in figures.items()
            if key.startswith(f"{name}/") and isinstance(value, int | float)
        }
        about = f"{name} held out, {own.get('num_samples', 0):.0f} samples"
        if own.get("num_damaged"):
            about += f", {own['num_damaged']:.0f} damaged ones apart"
        if "top1_percent" in own:
            lines.append(f"{about}: top-1 {own['top1_percent']:.1f} %, top-5 {own['top5_percent']:.1f} %")
        lines += [
            f"{about}, {what}: R@1 {own[f'{direction}_r1_percent']:.1f}, R@5 {own[f'{direction}_r5_percent']:.1f}, "
            f"R@10 {own[f'{direction}_r10_percent']:.1f} %, median rank {own[f'{direction}_median_rank']:g}"
            for direction, what in (("t2v", "text to video"), ("v2t", "video to text"))
            if f"{direction}_r1_percent" in own
        ]
    return lines
