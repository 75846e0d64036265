"""A trained model as a folder: weights as safetensors, a configuration, the tokenizer, a model card.

``config.json`` says what the model is (the settings with every default), how each granularity is read (frames, #iter)
and what was trained; ``clip/`` holds CLIP's configuration and tokenizer, so that nothing else is needed to load it.
Nothing is pickled, and no code of the folder is run. Trains nothing.
"""

# Tensors: B batch, T frames, D embedding, K classes.

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import ValidationError
from torch import Tensor

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from gex_pipeline.settings_errors import explain
from gex_pipeline.storage_failures import explained
from trainer.checkpoint import named_tensors
from trainer.checkpoint_files import fill_tensors, write_tensors
from trainer.classifier import VideoClassifier
from trainer.data_settings import GranularitySettings
from trainer.model import VideoTextModel
from trainer.optim import computes_in_bf16
from trainer.settings import ModelSettings, TowerSettings
from trainer.tokens import TextTokenizer, TextTokens, load_tokenizer
from trainer.towers import load_towers

CONFIG, WEIGHTS, CARD, CLIP = "config.json", "model.safetensors", "README.md", "clip"
PRECISION = "precision"
"""Key of a model's record: that of its training; records of old models lack it."""
_FORMAT = 1


@dataclass
class Pretrained:
    """A model in evaluation mode, and what is needed to feed it."""

    model: VideoTextModel
    tokenizer: TextTokenizer
    settings: ModelSettings
    granularities: dict[str, GranularitySettings]
    """How the granularities that it was trained on are read: frames and #iter by name."""
    image_size_px: int
    classifier: VideoClassifier | None = None
    """A model that was trained to classify: its linear head over the video branch, and the names of the classes."""
    trained: Mapping[str, Any] = field(default_factory=dict)
    """Data set, steps, figures: what the model card says."""

    @classmethod
    def from_pretrained(
        cls, uri: str | Path, device: str | torch.device = "cpu", *, changes: Mapping[str, Any] | None = None
    ) -> Self:
        """The model in a folder, local or on an object store: an exported one, or a training's output.

        `changes` are settings in place of the model's own, such as ``{"towers": {"frozen": True}}``; none on which a
        weight depends can be changed.

        Raises:
            GexError: there is no model, its files do not fit each other, or `changes` are none that it can take.
        """
        with local_folder(find_model(str(uri))) as folder:
            config = _read_config(folder)
            settings: ModelSettings = config["model"]
            if changes:
                settings = _changed(settings, changes)
            towers = settings.towers.model_copy(update={"clip": str(folder / CLIP), "weights": "random"})
            built, tokenizer = _made(settings, towers)
            classifier = VideoClassifier(built, config["class_names"]) if config["class_names"] else None
            fill_tensors(named_tensors(classifier or built), str(folder / WEIGHTS), "weights")
        (classifier or built).to(device).eval()
        return cls(
            built,
            tokenizer,
            settings,
            config["granularities"],
            config["image_size_px"],
            classifier,
            config["trained"],
        )

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.model.logit_scale.device

    def encode_videos(self, frames_BT3HW: Tensor, n_iter: int) -> Tensor:
        """Unit vectors (B, D) in float32 on the CPU, of bytes of the size that the model was trained on."""
        # in inference mode they could not be trained on: no gradient of a probe over them could be had
        with torch.no_grad(), self._autocast():
            vectors: Tensor = self.model.encode_video(frames_BT3HW.to(self.device, non_blocking=True), n_iter)
        return vectors.float().cpu()

    def encode_texts(self, texts: Sequence[str], n_iter: int) -> Tensor:
        """Unit vectors (B, D) in float32 on the CPU.

        Raises:
            ValueError: there are no texts, or one that is not in a list.
        """
        return self.encode_tokens(self.tokenizer(texts), n_iter)

    def encode_tokens(self, tokens: TextTokens, n_iter: int) -> Tensor:
        """The same of texts that the model's tokenizer has seen."""
        with torch.no_grad(), self._autocast():
            vectors: Tensor = self.model.encode_text(tokens.to(self.device), n_iter)
        return vectors.float().cpu()

    def classify(self, frames_BT3HW: Tensor, n_iter: int) -> Tensor:
        """Logits (B, K) in float32 on the CPU.

        Raises:
            GexError: the model was not trained to classify.
        """
        if self.classifier is None:
            raise GexError("this model has no classes; train it with task = 'classification' first")
        with torch.no_grad(), self._autocast():
            logits: Tensor = self.classifier(frames_BT3HW.to(self.device, non_blocking=True), n_iter)
        return logits.float().cpu()

    def _autocast(self) -> Any:
        # half precision where it is a gain and the training took it too, so that figures are those of the training
        enabled = computes_in_bf16(self.device) and self.trained.get(PRECISION, "bf16") == "bf16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)


def _changed(settings: ModelSettings, changes: Mapping[str, Any]) -> ModelSettings:
    """The settings with some of them in place of their own; of a table, those that are named."""
    content = settings.model_dump()
    for name, value in changes.items():
        is_table = isinstance(value, Mapping) and isinstance(content.get(name), dict)
        content[name] = {**content[name], **value} if is_table else value
    try:
        return ModelSettings.model_validate(content)
    except ValidationError as error:
        raise GexError(f"changes of a model's settings: {explain(error, ModelSettings)}") from error


def _made(settings: ModelSettings, towers: TowerSettings) -> tuple[VideoTextModel, TextTokenizer]:
    """A model without its weights."""
    try:
        return VideoTextModel(settings, load_towers(towers)), load_tokenizer(towers)
    except (OSError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise GexError(f"the folder {CLIP!r} of the model is not that of a CLIP: {first}") from error


def find_model(uri: str) -> str:
    """The folder of a model: `uri` itself, or ``model`` in a training's output.

    Raises:
        GexError: neither holds one.
    """
    for place in (uri, storage.join(uri, "model")):
        if storage.exists(storage.join(place, CONFIG)):
            return place
    raise GexError(
        f"no model at {uri!r}: neither it nor its folder 'model' holds a {CONFIG}; expected the output of a training "
        "that came to its end, or a folder that one of them exported"
    )


@dataclass(frozen=True)
class ModelFiles:
    """What `write_model` writes, beside the weights."""

    settings: ModelSettings
    tokenizer: TextTokenizer
    granularities: Mapping[str, GranularitySettings]
    image_size_px: int
    trained: Mapping[str, Any]
    card: str
    class_names: tuple[str, ...] = ()


def write_model(tensors: Mapping[str, Tensor], clip_config: Any, files: ModelFiles, folder: Path) -> None:
    """Write a model into an empty local folder; `tensors` are those of the model, or of the classifier, by name.

    Raises:
        GexError: a file cannot be written.
    """
    with explained(str(folder)):
        (folder / CLIP).mkdir(parents=True)
        clip_config.save_pretrained(folder / CLIP)
        files.tokenizer.save(folder / CLIP)
        write_tensors({name: tensor.detach().cpu() for name, tensor in tensors.items()}, folder / WEIGHTS)
        # whose CLIP it was says the card; to load it, the folder has all
        model = files.settings.model_dump(mode="json")
        config = {
            "format": _FORMAT,
            "model": model,
            "granularities": {name: one.model_dump(mode="json") for name, one in files.granularities.items()},
            "image_size_px": files.image_size_px,
            "class_names": list(files.class_names),
            "trained": dict(files.trained),
        }
        (folder / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / CARD).write_text(files.card, encoding="utf-8")


def publish_model(folder: Path, uri: str) -> None:
    """Put a written model at `uri`; its configuration comes last, so a model that has one is whole.

    Raises:
        GexError: it cannot be written.
    """
    storage.remove(storage.join(uri, CONFIG))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in sorted(files, key=lambda file: file == folder / CONFIG):
        storage.publish_file(path, storage.join(uri, *path.relative_to(folder).parts))


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise GexError(f"{CONFIG} has format {content['format']}; this version reads format {_FORMAT}")
        return {
            "model": ModelSettings.model_validate(content["model"]),
            "granularities": {
                name: GranularitySettings.model_validate(one) for name, one in content["granularities"].items()
            },
            "image_size_px": int(content["image_size_px"]),
            "class_names": tuple(content["class_names"]),
            "trained": content["trained"],
        }
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise GexError(f"{CONFIG} is not that of a model: {error}") from error


@contextmanager
def local_folder(uri: str) -> Iterator[Path]:
    """The files of a model, or of a CLIP, on this machine."""
    if storage.is_local(uri):
        yield storage.local_path(uri)
        return
    with storage.scratch_folder("gex-model-") as folder:
        for part in (folder, folder / CLIP):
            part.mkdir(exist_ok=True)
            within = uri if part == folder else storage.join(uri, CLIP)
            for file in storage.list_files(f"{within}/*"):
                storage.copy_range(file.uri, 0, file.num_bytes, part / storage.name_of(file.uri))
        yield folder
