"""``gex eval``: the figures of a trained model, on a published data set or on a public one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from gex_pipeline import __version__, storage
from gex_pipeline.cli.model_tools import note_damaged
from gex_pipeline.cli.show import say, say_json, table
from gex_pipeline.errors import GexError
from gex_pipeline.progress import LineProgress, progress, shown_by
from gex_pipeline.settings_errors import explain
from gex_pipeline.stages.models import open_model, require_train_extra
from trainer.annotation_kinds import KINDS

if TYPE_CHECKING:
    from trainer.data_settings import AnnotationSettings
    from trainer.evaluate import Evaluation, Options, ReadAs
    from trainer.history import HeldOut
    from trainer.pretrained import Pretrained

_OF_ANNOTATIONS = frozenset({"templates"}).union(*(kind.takes for kind in KINDS.values()))
_OF_PUBLISHED = ("snapshot",)
_OF_ANY = ("ties",)
_NUMBERS = {"num_frames": "frames", "n_iter_video": "#iter of videos", "n_iter_text": "#iter of texts"}
_NO_IMAGES = (
    "  the model was trained on no images: the paper reads them with #iter 0-1 after a stage on images, with 1-1 and "
    "3-1 without one (table 11; --n-iter-video 1)"
)


def command(arguments: argparse.Namespace) -> int:
    """Measure, and show or print what was found."""
    wrong = _misuse(arguments)
    if wrong:
        sys.stderr.write(f"gex: {wrong}; see: gex eval --help\n")
        return 2
    require_train_extra()
    from trainer.annotations import AnnotationError
    from trainer.prompts import TemplateError

    try:
        with shown_by(LineProgress()):
            pretrained = open_model(arguments.model)
            found = (_on_annotations if arguments.annotations else _on_published)(arguments, pretrained)
    except (AnnotationError, TemplateError, OSError) as error:
        raise GexError(str(error)) from error
    if arguments.json:
        say_json(_as_json(arguments.model, pretrained, found))
        return 0
    for evaluation in found:
        note_damaged(evaluation.damaged)
    _show(found)
    return 0


def _misuse(arguments: argparse.Namespace) -> str:
    """What is wrong with the flags, in words; nothing when they fit each other."""
    from trainer.data_settings import AnnotationSettings

    known = (*_OF_ANNOTATIONS, *_OF_PUBLISHED, *_OF_ANY)
    given = {name for name in known if getattr(arguments, name) is not None}
    kind = arguments.annotations
    if arguments.held_out is None and arguments.held_out_seed is not None:
        return "--held-out-seed goes with --held-out only"
    if kind is None:
        wrong = given.intersection(_OF_ANNOTATIONS)
        return f"{_flags(wrong)} goes with --annotations only" if wrong else ""
    wrong = given - KINDS[kind].takes - KINDS[kind].flags
    if wrong:
        return f"{_flags(wrong)} does not go with --annotations {kind}"
    lacking = KINDS[kind].needs - given
    if lacking:
        return f"--annotations {kind} needs {_flags(lacking)}"
    if len(arguments.granularity or ()) > 1:
        return "--annotations takes one --granularity, the one whose frames and #iter are used"
    try:
        _settings(arguments)
    except ValidationError as error:
        return explain(error, AnnotationSettings)
    return ""


def _settings(arguments: argparse.Namespace) -> AnnotationSettings:
    """The flags on what is read; files are looked for from the working directory."""
    from trainer.data_settings import AnnotationSettings

    kind = arguments.annotations
    given = {name: getattr(arguments, name) for name in KINDS[kind].takes}
    return AnnotationSettings(kind=kind, file=arguments.target, **given).located(storage.absolute)


def _flags(names: Collection[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in sorted(names))


def _options(arguments: argparse.Namespace) -> Options:
    from trainer.evaluate import Options
    from trainer.ranking import Ties

    return Options(
        num_frames=arguments.num_frames,
        n_iter_video=arguments.n_iter_video,
        n_iter_text=arguments.n_iter_text,
        max_samples=arguments.max_samples,
        seed=arguments.seed,
        ties=Ties(arguments.ties or Ties.average),
        batch_size=arguments.batch_size,
        num_workers=arguments.workers,
    )


def _on_published(arguments: argparse.Namespace, pretrained: Pretrained) -> list[Evaluation]:
    from trainer.evaluate import PublishedData, evaluate_published
    from trainer.history import held_out_of_dataset

    held_out = _given_split(arguments)
    if held_out is None:
        held_out = held_out_of_dataset(pretrained.trained, arguments.target)
    names = tuple(arguments.granularity or ())
    data = PublishedData(storage.absolute(arguments.target), arguments.snapshot, names, held_out)
    return evaluate_published(pretrained, data, _options(arguments), _note)


def _note(line: str) -> None:
    progress().note(f"gex: note: {line}")


def _given_split(arguments: argparse.Namespace) -> tuple[HeldOut, ...] | None:
    """The split that the flags name, none at all with a share of 0; None: that of the trainings is meant."""
    from trainer.history import HeldOut

    if arguments.held_out is None:
        return None
    return (HeldOut(arguments.held_out, arguments.held_out_seed or 0),) if arguments.held_out else ()


def _on_annotations(arguments: argparse.Namespace, pretrained: Pretrained) -> list[Evaluation]:
    from trainer.evaluate_annotations import PublicData, evaluate_annotations
    from trainer.history import held_out_of_annotations
    from trainer.prompts import read_templates

    settings = _settings(arguments)
    granularity = arguments.granularity[0] if arguments.granularity else None
    templates = read_templates(Path(arguments.templates)) if arguments.templates else None
    span = {} if arguments.span_s is None else {"span_s": arguments.span_s}
    held_out = _given_split(arguments)
    if held_out is None:
        held_out = held_out_of_annotations(pretrained.trained, settings)
    data = PublicData(settings, granularity, templates, held_out=held_out, **span)
    return [evaluate_annotations(pretrained, data, _options(arguments))]


def _as_json(model_uri: str, pretrained: Pretrained, found: list[Evaluation]) -> dict[str, Any]:
    import torch

    from trainer.vectors import model_digest

    return {
        "model": storage.absolute(model_uri),
        "model_sha256": model_digest(model_uri),
        "trained": dict(pretrained.trained),
        "device": str(pretrained.device),
        "software": {"gex": __version__, "torch": torch.__version__},
        "evaluations": [evaluation.as_dict() for evaluation in found],
    }


def _show(found: list[Evaluation]) -> None:
    """Tables for a person; retrieval of several granularities is one."""
    retrieval = [one for one in found if one.task == "retrieval"]
    if retrieval:
        rows = [row for one in retrieval for row in _retrieval_rows(one)]
        headings = ("set", "direction", "R@1", "R@5", "R@10", "median", "R@1 by chance", "queries", "candidates")
        table(headings, rows, numbers=(2, 3, 4, 5, 6, 7, 8))
    others = [row for one in found if one.task != "retrieval" for row in _other_rows(one)]
    if others:
        table(("set", "figure", "value"), others, numbers=(2,))
    for one in found:
        _tell(one)


def _retrieval_rows(one: Evaluation) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for direction in ("text_to_video", "video_to_text"):
        figures, chance = one.figures[direction], one.figures[f"chance_{direction}"]
        recalls = [f"{figures[name]:.1f}" for name in ("r1_percent", "r5_percent", "r10_percent")]
        counts = [f"{figures[name]:,}" for name in ("num_queries", "num_candidates")]
        median, by_chance = f"{figures['median_rank']:g}", _two_digits(chance["r1_percent"])
        rows.append((_name_of(one), direction.replace("_", " "), *recalls, median, by_chance, *counts))
    return rows


def _two_digits(percent: float) -> str:
    """At least so many, and no exponent: chance is 0.01 % among ten thousand and 100 % where all are right."""
    return f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"


def _other_rows(one: Evaluation) -> list[tuple[str, ...]]:
    """The figures that are one number each."""
    rows: list[tuple[str, ...]] = []
    for name, value in one.figures.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            rows.append(
                (_name_of(one), name.replace("_", " "), f"{value:.1f}" if isinstance(value, float) else f"{value:,}")
            )
    return rows


def _name_of(one: Evaluation) -> str:
    return str(one.data["granularity"] if "granularity" in one.data else one.data["annotations"]["kind"])


def _tell(one: Evaluation) -> None:
    """How the figures came about, in lines."""
    read = one.read
    say(
        f"{_name_of(one)}: {one.num_samples:,} samples, {len(one.damaged):,} unreadable, frames {read.num_frames}, "
        f"#iter {read.n_iter_video}-{read.n_iter_text} ({_whose(read)}), "
        f"{'' if one.ties is None else f'ties: {one.ties}, '}{one.seconds:.1f} s"
    )
    if read.granularity == "IT" and read.origin == "paper" and "n_iter_video" not in read.given:
        say(_NO_IMAGES)
    say(f"  {one.method}")
    if "num_chosen" in one.data and "told" not in one.data:
        num_chosen, num_in_part = one.data["num_chosen"], one.data["num_in_part"]
        say(f"  {num_chosen:,} of {num_in_part:,} samples, chosen by seed {one.options.seed}")
    _tell_part(one.data)
    if one.num_truncated_texts:
        say(f"  {one.num_truncated_texts:,} texts do not fit the text tower: their ends were not read")
    if one.figures.get("num_shared_texts"):
        say(f"  {one.figures['num_shared_texts']:,} texts belong to several videos")
    if "told" in one.data:
        say(f"  {one.data['told']}")


def _whose(read: ReadAs) -> str:
    """Which of the numbers were given, and whose the others are."""
    rest = {"model": "as trained", "paper": f"the paper's numbers of {read.granularity}"}.get(read.origin)
    if not read.given or rest is None:
        return rest or "as given"
    return f"{', '.join(_NUMBERS[name] for name in read.given)} given, the rest {rest}"


def _tell_part(data: dict[str, Any]) -> None:
    """Which sources were measured, and whether the model may have been trained on them."""
    splits = "; ".join(f"share {one['share']:g}, seed {one['seed']}" for one in data.get("held_out", ()))
    if splits:
        by_all = "" if len(data["held_out"]) == 1 else " of all the trainings of the model on these data"
        say(f"  only held-out sources{by_all}: {splits}")
    if data.get("trained_on"):
        say("  the model was trained on these data: what was measured may be among what it was trained on")
