"""Models of a few thousand weights: the real ones in small, and one whose towers are two linear maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainer.model import VideoTextModel
from trainer.settings import IamSettings, ModelSettings, TowerSettings
from trainer.tokens import TextTokens
from trainer.towers import ClipTowers, towers_of

IMAGE_PX = 16
MAX_TOKENS = 10
VOCABULARY = 40
START, END = 38, 39
TINY_IAM: dict[str, Any] = {"num_embeddings": 4, "dim": 16, "num_heads": 2, "mlp_ratio": 4, "num_temporal_positions": 4}


def tiny_clip_config(**text: Any) -> Any:
    from transformers import CLIPConfig

    tower = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return CLIPConfig(
        text_config={
            **tower,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": MAX_TOKENS,
            "bos_token_id": START,
            "eos_token_id": END,
            "pad_token_id": END,
            **text,
        },
        vision_config={**tower, "hidden_size": 32, "image_size": IMAGE_PX, "patch_size": 8},
        projection_dim=16,
        initializer_factor=5.0,
    )


def settings_of(iam: dict[str, Any] | None = None, towers: dict[str, Any] | None = None, **rest: Any) -> ModelSettings:
    return ModelSettings(iam=IamSettings(**(TINY_IAM | (iam or {}))), towers=TowerSettings(**(towers or {})), **rest)


def tiny_model(settings: ModelSettings | None = None, seed: int = 0, **text: Any) -> VideoTextModel:
    """A whole model in float64, in evaluation mode."""
    from transformers import CLIPModel

    settings = settings or settings_of()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip = CLIPModel(tiny_clip_config(**text))
        return VideoTextModel(settings, towers_of(clip, settings.towers)).double().eval()


class LinearTower(nn.Module):
    """Stands for a tower where towers are not what is tested: rows of numbers in, features out."""

    def __init__(self, in_dim: int, num_features: int, feature_dim: int) -> None:
        super().__init__()
        self.num_features, self.feature_dim = num_features, feature_dim
        self.linear = nn.Linear(in_dim, num_features * feature_dim)

    def forward(self, rows_FX: Tensor) -> Tensor:
        return self.linear(rows_FX.double()).tanh().unflatten(-1, (self.num_features, self.feature_dim))


def linear_model(seed: int = 0) -> VideoTextModel:
    """A model in float64 that needs no CLIP: frames are 6 numbers, windows of text 5."""
    settings = settings_of({"num_temporal_positions": 2}, {"mask_padding": False})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        towers = ClipTowers(LinearTower(6, 3, 8), LinearTower(5, 5, 8), torch.zeros(0), torch.zeros(0))
        return VideoTextModel(settings, towers).double()


def draw_batch(num_rows: int, num_frames: int = 3, seed: int = 1) -> tuple[Tensor, TextTokens]:
    """Videos of random bytes and texts of random lengths for the tiny model."""
    draw = torch.Generator().manual_seed(seed)
    shape = (num_rows, num_frames, 3, IMAGE_PX, IMAGE_PX)
    video = torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8)
    ids = torch.full((num_rows, 1, MAX_TOKENS), END)
    mask = torch.zeros(num_rows, 1, MAX_TOKENS, dtype=torch.bool)
    for row in range(num_rows):
        length = int(torch.randint(1, MAX_TOKENS - 1, (), generator=draw))
        ids[row, 0, 0] = START
        ids[row, 0, 1 : length + 1] = torch.randint(0, START, (length,), generator=draw)
        mask[row, 0, : length + 2] = True
    return video, TextTokens(ids, mask, torch.zeros(num_rows, dtype=torch.bool))


def draw_linear_batch(num_rows: int, seed: int = 1) -> tuple[Tensor, TextTokens]:
    """Rows of numbers for the linear model, as (B, T, 6) and (B, 1, 5)."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(num_rows, 1, 5, generator=draw, dtype=torch.float64)
    video = torch.randn(num_rows, 2, 6, generator=draw, dtype=torch.float64)
    return video, TextTokens(rows, torch.ones_like(rows, dtype=torch.bool), torch.zeros(num_rows, dtype=torch.bool))


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
