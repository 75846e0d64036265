"""What the model is trained on and how it is read: one frozen tree, checked when it is made.

Names of granularities are those of the data set; the paper's four need an empty table each. Says nothing of the model,
the optimiser or machines.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from trainer.annotation_kinds import KINDS, KindName

PAPER_GRANULARITIES: dict[str, dict[str, int]] = {
    "SVST": {"num_frames": 16, "n_iter_video": 1, "n_iter_text": 1},
    "LVLT": {"num_frames": 32, "n_iter_video": 3, "n_iter_text": 3},
    "LVST": {"num_frames": 32, "n_iter_video": 3, "n_iter_text": 1},
    "IT": {"num_frames": 1, "n_iter_video": 0, "n_iter_text": 1},
}
"""Paper: GEXIA §4.1 (frames), §4.1 and §4.4 (#iter), appendix F (images); where a recipe does not say otherwise."""

CoinSubset = Literal["training", "testing", "validation"]
Task = Literal["contrastive", "classification"]


class GranularitySettings(BaseModel):
    """How one granularity is read and approximated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_frames: int = Field(ge=1)
    """d, frames of a video, one in each of as many equal spans of it."""
    n_iter_video: int = Field(ge=0)
    """Passes of the video branch's shared block."""
    n_iter_text: int = Field(ge=0)
    """Passes of the text branch's shared block."""
    weight: float = Field(default=1.0, gt=0)
    """How often a sample is taken, relative to the other granularities; the largest weight means once an epoch."""


class AnnotationSettings(BaseModel):
    """The annotation file of a public data set, and the folder with its media (docs/evaluation.md)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: KindName
    """Whose format the file has."""
    file: str = Field(min_length=1)
    """The annotation file, or the folder of class folders."""
    media: str | None = None
    """Folder with the videos; class folders hold them themselves."""
    captions: str | None = None
    """MSR-VTT: the JSON file with the captions."""
    class_names: str | None = None
    """Charades-Ego: the file with the names of the classes; class folders: names in place of those of the folders."""
    subset: str | None = None
    """COIN: "training" (the default to train on) or "testing" (to measure); ActivityNet: a file of ids."""
    span_s: float | None = Field(default=None, gt=0)
    """LVU: videos are cut into as few equal spans as are no longer than this, each a sample; none: whole videos."""
    trim: bool | None = None
    """COIN: only the part of a video that shows its task. None: whole videos, as in the paper, but to measure a model
    that was trained on such parts."""

    @model_validator(mode="before")
    @classmethod
    def _as_it_was_begun(cls, values: Any) -> Any:
        # Versions that did not know the key trimmed COIN. What they wrote down has a null for every key that is not
        # set, which nobody else has reason to write: it goes on as it began, or is told as another recipe.
        if isinstance(values, dict) and values.get("kind") == "coin" and "captions" in values and "trim" not in values:
            return {**values, "trim": True}
        return values

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        kind = KINDS[self.kind]
        given = {name for name, value in self if value is not None} - {"kind", "file"}
        if wrong := given - kind.takes:
            raise ValueError(
                f"annotations of kind {self.kind} take no {_listed(wrong)}; beside file they take {_listed(kind.takes)}"
            )
        if lacking := kind.needs - given:
            raise ValueError(f"annotations of kind {self.kind} need {_listed(lacking)}; name it")
        if self.kind == "coin" and self.subset not in (None, *get_args(CoinSubset)):
            raise ValueError(f"COIN has no subset {self.subset!r}; expected training or testing")
        return self

    def to_train_on(self) -> AnnotationSettings:
        """The same, COIN with what is trained on where nothing is said: to measure, the defaults are others."""
        if self.kind != "coin":
            return self
        return self.model_copy(update={"subset": self.subset or "training", "trim": bool(self.trim)})

    def located(self, absolute: Callable[[str], str]) -> AnnotationSettings:
        """The same with its paths made absolute."""
        names = ["file", "media", "captions", "class_names", *(["subset"] if self.kind == "activitynet" else [])]
        paths = {name: getattr(self, name) for name in names}
        return self.model_copy(update={name: absolute(path) for name, path in paths.items() if path is not None})


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names))


class DataSettings(BaseModel):
    """The data set, its granularities, batches, and what becomes of samples that cannot be read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str | None = Field(default=None, min_length=1)
    """URI of a published output: the folder in which ``dataset.json`` lies."""
    annotations: AnnotationSettings | None = None
    """A public data set in place of a published output; its samples are of the one granularity that is named."""
    snapshot: int | None = Field(default=None, ge=0)
    """The last snapshot to read; none: all there are when training starts."""
    granularities: dict[str, GranularitySettings] = Field(min_length=1)
    """By name; an empty table takes the paper's numbers for the paper's granularities."""
    batch_size: int = Field(default=512, ge=1)
    """Samples of a step on all ranks together; the number of ranks divides it."""
    image_size_px: int = Field(default=224, ge=1)
    """Side of the square a frame is brought to: its shorter side is scaled to it, the longer one cut to the middle."""
    frame_sampling: Literal["middle", "random"] = "middle"
    """Where in its span a frame is taken in training: in the middle, or anywhere, elsewhere in every epoch. Of images,
    and of stored frames that are no more than are read, it changes nothing. What is measured has the middles."""
    seed: int = Field(default=0, ge=0)
    """Of the order of samples, and of the places of random frames."""
    window_shards: int = Field(default=16, ge=1)
    """Shards whose samples are mixed with each other; more mix better, fewer keep reads closer together."""
    held_out_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the sources whose samples are never trained on."""
    held_out_seed: int = Field(default=0, ge=0)
    """Which sources these are; apart from `seed`, so that runs that differ in order can be compared."""
    max_damaged_share: float = Field(default=0.01, ge=0, le=1)
    """Training stops when a larger share of an epoch's samples so far cannot be read."""
    num_workers: int = Field(default=4, ge=0)
    """Processes of a rank that read and decode, one core each; 0: the training process does it."""
    prefetch_batches: int = Field(default=2, ge=1)
    """Batches that each worker holds ready."""
    worker_timeout_s: float = Field(default=900.0, gt=0)
    """Training stops when no batch comes for so long; with 0 workers there is no limit."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.dataset is None) == (self.annotations is None):
            raise ValueError("name what to train on: either dataset or a table annotations")
        if self.annotations is not None and len(self.granularities) != 1:
            raise ValueError(f"a public data set is one granularity, {len(self.granularities)} are named")
        return self

    def located(self, absolute: Callable[[str], str]) -> DataSettings:
        """The same with its paths made absolute."""
        change: dict[str, Any] = {}
        if self.dataset is not None:
            change["dataset"] = absolute(self.dataset)
        if self.annotations is not None:
            change["annotations"] = self.annotations.located(absolute)
        return self.model_copy(update=change)

    @field_validator("annotations")
    @classmethod
    def _to_train_on(cls, annotations: AnnotationSettings | None) -> AnnotationSettings | None:
        # the recipe is what the model says of its training, so it names subset and part
        return annotations and annotations.to_train_on()

    @field_validator("granularities", mode="before")
    @classmethod
    def _fill_in_the_papers_numbers(cls, tables: Any) -> Any:
        if not isinstance(tables, dict):
            return tables
        return {
            name: {**PAPER_GRANULARITIES.get(name, {}), **table} if isinstance(table, dict) else table
            for name, table in tables.items()
        }
