"""The two branches: videos and texts in, unit vectors of one space out.

A branch is a tower, its features joined over frames or windows, an IAM, the mean of its embeddings. The number of
passes is given at every call and for each branch apart; no parameter depends on it. The model knows one device.
The loss is another file's.

Paper: GEXIA §3.2.
"""

# Tensors: B batch, T frames (d in the paper), P features of one frame, M features in all, C their width, D embedding.

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.iam import Iam, TemporalPosition, new_base, start_values_at
from trainer.settings import ModelSettings
from trainer.tokens import TextTokens
from trainer.towers import ClipTowers


class Embeddings(NamedTuple):
    """What the loss reads. The scale, 1/τ, has shape (1,): sharded training knows no parameters without shape."""

    video_BD: Tensor
    text_BD: Tensor
    logit_scale: Tensor


class VideoTextModel(nn.Module):
    """Both branches and the temperature."""

    def __init__(self, settings: ModelSettings, towers: ClipTowers) -> None:
        super().__init__()
        iam = settings.iam
        self.image_tower, self.text_tower = towers.image, towers.text
        base_ND = new_base(iam) if settings.shared_base else None
        self.video_iam = Iam(iam, towers.image.feature_dim, base_ND)
        self.text_iam = Iam(iam, towers.text.feature_dim, base_ND)
        self.temporal_position = (
            TemporalPosition(iam.num_temporal_positions, towers.image.feature_dim)
            if iam.temporal_position == "learned"
            else None
        )
        if iam.value_init == "clip_projection":
            start_values_at(self.video_iam, towers.image_projection)
            start_values_at(self.text_iam, towers.text_projection)
        self.mask_padding = settings.towers.mask_padding
        self.max_log_scale = math.log(settings.max_logit_scale)
        self.logit_scale = nn.Parameter(torch.tensor([-math.log(settings.initial_temperature)]))

    def forward(
        self, video_BT3HW: Tensor, texts: TextTokens, *, n_iter_video: int = 1, n_iter_text: int = 1
    ) -> Embeddings:
        """Unit vectors of videos and texts, and 1/τ; the scale is computed here so that wrappers see its use."""
        return Embeddings(
            self.encode_video(video_BT3HW, n_iter_video), self.encode_text(texts, n_iter_text), self.scale()
        )

    def encode_video(self, video_BT3HW: Tensor, n_iter: int) -> Tensor:
        """Unit vectors (B, D). Bytes, or floats that are normalised already; frames of the image tower's size."""
        return _unit(self.pool_video(video_BT3HW, n_iter))

    def pool_video(self, video_BT3HW: Tensor, n_iter: int) -> Tensor:
        """The mean of a video's embeddings (B, D), not of unit length."""
        # one tall batch of frames: the towers' matrices are too small to fill a device otherwise
        features_FPC = self.image_tower(video_BT3HW.flatten(0, 1))
        features_BTPC = features_FPC.unflatten(0, video_BT3HW.shape[:2])
        if self.temporal_position is not None:
            features_BTPC = self.temporal_position(features_BTPC)
        return self.video_iam.pool(self.video_iam(features_BTPC.flatten(1, 2), n_iter))

    def encode_text(self, texts: TextTokens, n_iter: int) -> Tensor:
        """Unit vectors (B, D); the features of all windows of a text are joined."""
        features_FLC = self.text_tower(texts.ids_BWL.flatten(0, 1))
        features_BMC = features_FLC.unflatten(0, texts.ids_BWL.shape[:2]).flatten(1, 2)
        return _unit(self.text_iam.pool(self.text_iam(features_BMC, n_iter, self._key_mask(texts))))

    def scale(self) -> Tensor:
        """1/τ, bounded, of shape (1,)."""
        return self.logit_scale.clamp(max=self.max_log_scale).exp()

    def bound_logit_scale(self) -> None:
        """Bring the parameter itself below its bound, after an optimiser's step: beyond it, it has no gradient."""
        with torch.no_grad():
            self.logit_scale.clamp_(max=self.max_log_scale)

    def _key_mask(self, texts: TextTokens) -> Tensor | None:
        if self.mask_padding:
            return texts.mask_BWL.flatten(1)
        if texts.mask_BWL.shape[1] == 1:
            return None
        # padding inside a window counts, whole windows that another text of the batch needed do not
        return texts.mask_BWL.any(dim=-1, keepdim=True).expand_as(texts.mask_BWL).flatten(1)


def parameter_groups(
    model: nn.Module, *, learning_rate_towers: float, learning_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Groups of a model, or of what is around it, for an optimiser; empty ones are left out.

    Towers and the rest, each with and without weight decay.
    Vectors (biases, norms, class token, temperature), bases and positions do not decay; what is frozen is in no group.
    """
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            in_tower = any(f".{tower}." in f".{name}" for tower in ("image_tower", "text_tower"))
            part = "towers" if in_tower else "rest"
            decays = parameter.ndim > 1 and "position" not in name and not name.endswith(".base")
            groups.setdefault(f"{part}_{'decay' if decays else 'no_decay'}", []).append(parameter)
    return [
        {
            "name": name,
            "params": parameters,
            "lr": learning_rate_towers if name.startswith("towers") else learning_rate,
            "weight_decay": weight_decay if name.endswith("_decay") and not name.endswith("no_decay") else 0.0,
        }
        for name, parameters in sorted(groups.items())
    ]


def _unit(x_BD: Tensor) -> Tensor:
    # in 32 bits at least: half precision would move cosines by a percent
    if x_BD.dtype in (torch.float16, torch.bfloat16):
        x_BD = x_BD.float()
    return functional.normalize(x_BD, dim=-1)
