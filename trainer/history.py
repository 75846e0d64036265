"""What a model was trained on, in all its trainings, and which sources of some data every one of these held out.

A model that started from another one has seen what that one was trained on: a source is held out only where no
training of the chain took it. Which data these were is told by their place; that of annotations also by their kind.
Reads no data and measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from gex_pipeline import storage
from gex_pipeline.errors import GexError, RecipeError
from trainer.data_settings import AnnotationSettings, DataSettings

EARLIER = "earlier"
"""Key of a model's record: the trainings before its last one, oldest first; records of old models lack it."""
_KEPT = (
    "name",
    "task",
    "data",
    "annotations",
    "snapshot",
    "samples",
    "held_out_share",
    "held_out_seed",
    "num_steps",
    "start_from",
    "start_from_parts",
)

Training = Mapping[str, Any]
"""What a model's configuration says of one training, under ``trained``."""


class HeldOut(NamedTuple):
    """A split: the sources that a training with this share and seed does not take."""

    share: float
    seed: int = 0

    def __str__(self) -> str:
        return f"share {self.share:g}, seed {self.seed}"

    def is_within(self, other: HeldOut) -> bool:
        """Whether all sources of this one are among those of the other, whatever the data."""
        return self.seed == other.seed and self.share <= other.share


def trainings_of(trained: Training) -> list[Training]:
    """All trainings of a model, oldest first; of a record without earlier ones it is the one."""
    return [*trained.get(EARLIER, ()), trained]


def record_of(trained: Training) -> list[dict[str, Any]]:
    """What a model that starts from this one writes down of it: every training without its figures, oldest first."""
    return [{key: one.get(key) for key in _KEPT} for one in trainings_of(trained)]


def last_granularities(trained: Training, known: Iterable[str]) -> list[str]:
    """Those of the known granularities that a model's last training was on; of a record that names none, all."""
    samples = trained.get("samples")
    return [name for name in known if samples is None or name in samples]


def granularity_of_kind(trained: Training, kind: str) -> str | None:
    """As what the newest training on annotations of a kind read them; None: there was no such training."""
    newest = _newest_of_kind(trained, kind)
    return None if newest is None else next(iter(newest.get("samples") or ()), None)


def span_of_kind(trained: Training, kind: str) -> float | None:
    """The longest span into which the newest training on annotations of a kind cut videos; None: it took them whole."""
    newest = _newest_of_kind(trained, kind)
    return None if newest is None else newest["annotations"].get("span_s")


def _newest_of_kind(trained: Training, kind: str) -> Training | None:
    for one in reversed(trainings_of(trained)):
        annotations = one.get("annotations")
        if isinstance(annotations, dict) and annotations.get("kind") == kind:
            return one
    return None


def trainings_on_dataset(trainings: Sequence[Training], uri: str) -> list[Training]:
    """Those on a published data set."""
    on_datasets = [one for one in trainings if one.get("data") and one.get("annotations") is None]
    return [one for one in on_datasets if is_same_place(str(one["data"]), uri)]


def trainings_on_annotations(trainings: Sequence[Training], settings: AnnotationSettings) -> list[Training]:
    """Those on an annotation file: of its kind and place, and for COIN, whose subsets are apart, of the subset."""
    found = []
    for one in trainings:
        annotations = one.get("annotations")
        if not isinstance(annotations, dict) or annotations.get("kind") != settings.kind:
            continue  # trained on something else, or exported before the file was written down
        if settings.kind == "coin" and (annotations.get("subset") == "training") != (settings.subset == "training"):
            continue
        if is_same_place(str(annotations.get("file")), settings.file):
            found.append(one)
    return found


def held_out_of_dataset(trained: Training, uri: str) -> tuple[HeldOut, ...]:
    """What the trainings of a model held out of a published data set: a source is held out where all of these say so.

    None where it was not trained on it, or where no training held anything out.

    Raises:
        GexError: one of them held sources out and another one took all.
    """
    return _held_out_by_all(trainings_on_dataset(trainings_of(trained), uri), uri)


def held_out_of_annotations(trained: Training, settings: AnnotationSettings) -> tuple[HeldOut, ...]:
    """The same of an annotation file.

    Raises:
        GexError: one of them held videos out and another one took all.
    """
    return _held_out_by_all(trainings_on_annotations(trainings_of(trained), settings), settings.file)


def are_held_out(trainings: Sequence[Training], held_out: Sequence[HeldOut]) -> bool:
    """Whether none of these trainings can have taken a source that all of these splits hold out."""
    return all(any(one.is_within(_split_of(training)) for one in held_out) for training in trainings)


def check_held_out(data: DataSettings, earlier: Sequence[Training]) -> None:
    """Refuse a training whose held-out figures would be of sources that the model it starts from was trained on.

    Raises:
        RecipeError: the keys, and what they can be.
    """
    if not data.held_out_share:
        return
    own = HeldOut(data.held_out_share, data.held_out_seed)
    if data.annotations is not None:
        same = trainings_on_annotations(earlier, data.annotations)
    else:
        same = trainings_on_dataset(earlier, data.dataset or "")
    for training in same:
        before = _split_of(training)
        if own.is_within(before):
            continue
        took, instead = "took all of them", ""
        if before.share:
            took = f"held out {before}"
            instead = f"held_out_share = {before.share:g} or less with held_out_seed = {before.seed}, or "
        raise RecipeError(
            f"data.held_out_share = {own.share:g} with data.held_out_seed = {own.seed} would measure as held out what "
            f"the model of start_from was trained on: of the same data its training {_name_of(training)!r} {took}; "
            f"set {instead}held_out_share = 0, with which nothing is measured"
        )


def is_same_place(first: str, second: str) -> bool:
    """Whether two URIs lead to the same file or folder; of local ones links and ``..`` are followed."""
    if storage.is_local(first) and storage.is_local(second):
        return storage.local_path(first).resolve() == storage.local_path(second).resolve()
    return first.rstrip("/") == second.rstrip("/")


def told_part(held_out: Sequence[HeldOut], trainings: Sequence[Training]) -> dict[str, Any]:
    """Which part of the data is measured, as an evaluation names it; `trainings` are those on the same data."""
    told: dict[str, Any] = {"part": "held out" if held_out else "all"}
    if held_out:
        told["held_out"] = [one._asdict() for one in held_out]
    # a split that is given need not be that of the training
    return told if are_held_out(trainings, held_out) else {**told, "trained_on": True}


def what_to_take(held_out: Sequence[HeldOut], trainings: Sequence[Training]) -> str:
    """For an error where these splits leave nothing of data on which a model had these trainings."""
    if len(held_out) == 1 and held_out[0] in map(_split_of, trainings):
        return (
            f"the model's own split ({held_out[0]}) leaves none of them out of training. `gex eval --held-out 0` takes "
            "all, of which it was trained on some"
        )
    if len(held_out) == 1:
        return f"take a larger share than {held_out[0].share:g}, or 0 for all of them"
    splits = "; ".join(map(str, held_out))
    return (
        f"none is held out by all of the model's trainings on these data ({splits}). `gex eval --held-out 0` takes all"
    )


def _held_out_by_all(trainings: Sequence[Training], place: str) -> tuple[HeldOut, ...]:
    smallest: dict[int, float] = {}
    took_all = [one for one in trainings if not _split_of(one).share]
    for share, seed in map(_split_of, trainings):
        if share:  # with one seed, the smaller share's sources are among the larger one's
            smallest[seed] = min(share, smallest.get(seed, share))
    if smallest and took_all:
        others = "; ".join(f"{_name_of(one)!r} {_split_of(one)}" for one in trainings if _split_of(one).share)
        raise GexError(
            f"no source of {place!r} was held out by all trainings of this model: {_name_of(took_all[0])!r} took all "
            f"of them, though another one held some out ({others}). `gex eval --held-out 0` measures all of them"
        )
    return tuple(HeldOut(share, seed) for seed, share in smallest.items())


def _split_of(training: Training) -> HeldOut:
    return HeldOut(float(training.get("held_out_share") or 0), int(training.get("held_out_seed") or 0))


def _name_of(training: Training) -> str:
    return str(training.get("name") or "training")
