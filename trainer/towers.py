"""CLIP's two encoders: frames or token ids in, features of every patch or token out.

A tower reads one image or one window of text at a time; frames and windows lie in the batch. Image features are taken
after the last layer norm and text features after the final one, both before CLIP's projection unless the settings
say otherwise. A frozen tower takes no gradient and stays in evaluation mode. Downloads nothing when the settings
name a directory. Does not resize or crop: frames have the tower's size.

Paper: GEXIA §3.2, dense feature extraction.
"""

# Tensors: F frames or windows, P features of one frame, L tokens of one window, C width of the features.

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from trainer.settings import TowerSettings

# of the pixels CLIP was trained on, as shares of full brightness
_PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
_PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ClipTowers:
    """Both towers of one CLIP, and the projections (D, C) into its common space, which need not be used."""

    image: ImageTower
    text: TextTower
    image_projection: Tensor
    text_projection: Tensor


def load_towers(settings: TowerSettings) -> ClipTowers:
    """The CLIP that the settings name, in 32-bit floats, from its weights or from scratch.

    Raises:
        OSError: there is no such checkpoint.
        ValueError: it is no CLIP, its weights are damaged or not all there, or it was trained with another activation.
    """
    import transformers

    config = transformers.AutoConfig.from_pretrained(settings.clip, revision=settings.revision, trust_remote_code=False)
    if config.model_type != "clip":
        raise ValueError(f"{settings.clip!r} is a {config.model_type!r}; expected a CLIP")
    if settings.weights == "random":
        return towers_of(transformers.CLIPModel(config), settings)
    try:
        clip, info = transformers.CLIPModel.from_pretrained(
            settings.clip, revision=settings.revision, dtype=torch.float32, output_loading_info=True
        )
    except (SafetensorError, RuntimeError) as error:  # cut off, or of other sizes than the configuration says
        raise ValueError(
            f"its weights are damaged or do not fit its config.json ({str(error).strip().splitlines()[0]}); copy or "
            "download it anew"
        ) from error
    if info["missing_keys"]:
        raise ValueError(
            f"CLIP {settings.clip!r} lacks {len(info['missing_keys'])} weights, first {min(info['missing_keys'])!r}, "
            "which would be random; use a complete checkpoint, or weights = 'random' on purpose"
        )
    return towers_of(clip, settings)


def towers_of(clip: Any, settings: TowerSettings) -> ClipTowers:
    """Towers of a CLIPModel of transformers that is already in memory.

    Raises:
        ValueError: its activation is not the one of the settings.
    """
    for name in ("text_config", "vision_config"):
        found = getattr(clip.config, name).hidden_act
        if found != settings.activation:
            raise ValueError(
                f"CLIP's {name} has activation {found!r}, the settings say {settings.activation!r}; with another "
                "one than it was trained with a CLIP is wrong everywhere, without any error; set "
                f"model.towers.activation to {found!r}"
            )
    return ClipTowers(
        image=ImageTower(clip, settings),
        text=TextTower(clip, settings),
        image_projection=clip.visual_projection.weight.detach().clone(),
        text_projection=clip.text_projection.weight.detach().clone(),
    )


class _Tower(nn.Module):
    def __init__(self, encoder: nn.Module, projection: nn.Module | None, settings: TowerSettings) -> None:
        super().__init__()
        self.encoder, self.projection, self.frozen = encoder, projection, settings.frozen
        if self.frozen:
            self.requires_grad_(False)
            self.eval()

    def train(self, mode: bool = True) -> Self:
        """Training mode, except for a frozen tower."""
        super().train(mode and not self.frozen)
        return self

    def _gradients(self) -> AbstractContextManager[None]:
        return torch.no_grad() if self.frozen else nullcontext()

    def _project(self, features_FPC: Tensor) -> Tensor:
        return features_FPC if self.projection is None else self.projection(features_FPC)


class ImageTower(_Tower):
    """Frames in, features of their patches out; `feature_dim` and `num_features` are C and P."""

    def __init__(self, clip: Any, settings: TowerSettings) -> None:
        super().__init__(clip.vision_model, clip.visual_projection if settings.projected else None, settings)
        config = clip.config.vision_config
        self.class_token = settings.class_token
        self.image_px = int(config.image_size)
        self.num_features = (config.image_size // config.patch_size) ** 2 + int(settings.class_token)
        self.feature_dim = int(clip.config.projection_dim if settings.projected else config.hidden_size)
        self.projection_dim = int(clip.config.projection_dim)
        for name, values in (("pixel_mean", _PIXEL_MEAN), ("pixel_std", _PIXEL_STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, frames_F3HW: Tensor) -> Tensor:
        """Features (F, P, C). Bytes are scaled and normalised here; floats are taken as normalised already."""
        if frames_F3HW.shape[0] == 0:  # of a batch of which no sample can be read; the encoder knows no empty one
            return self.pixel_mean.new_empty(0, self.num_features, self.feature_dim)
        with self._gradients():
            tokens_FPC = self.encoder(pixel_values=self.normalised(frames_F3HW)).last_hidden_state
            if not self.class_token:
                tokens_FPC = tokens_FPC[:, 1:]
            return self._project(self.encoder.post_layernorm(tokens_FPC))

    def normalised(self, frames_F3HW: Tensor) -> Tensor:
        """Frames as the encoder takes them; floats are normalised already."""
        if frames_F3HW.is_floating_point():
            return frames_F3HW
        # bytes travel to the device, a quarter of what floats would take; there they become floats, in one copy of them
        pixels_F3HW = frames_F3HW.to(self.pixel_mean.dtype)
        return pixels_F3HW.div_(255).sub_(self.pixel_mean).div_(self.pixel_std)


class TextTower(_Tower):
    """Windows of token ids in, features of every token out; `max_tokens` is the length of a window."""

    def __init__(self, clip: Any, settings: TowerSettings) -> None:
        super().__init__(clip.text_model, clip.text_projection if settings.projected else None, settings)
        config = clip.config.text_config
        self.max_tokens = int(config.max_position_embeddings)
        self.feature_dim = int(clip.config.projection_dim if settings.projected else config.hidden_size)

    def forward(self, ids_FL: Tensor) -> Tensor:
        """Features (F, L, C). The tower is causal: what comes after a token changes nothing of it."""
        with self._gradients():
            return self._project(self.encoder(input_ids=ids_FL).last_hidden_state)
