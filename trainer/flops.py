"""Operations that the model takes, counted from its shapes: settings and CLIP's configuration in, FLOPs out.

A multiplication with its addition is two operations. Counted are matrix products, attention (its whole square, also
where it is causal) and the patch convolution; not counted are norms, activations, softmax and the loss. A backward
pass is two forward passes. The IAM is counted as it runs: keys and values once a block.
Measures no time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainer.settings import IamSettings, ModelSettings

PEAK_FLOPS_PER_S = {
    "A100": 312e12,
    "H100 SXM": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H200": 989e12,
}
"""Dense bf16 peaks as the vendor states them; say which one a utilisation is a share of."""


@dataclass(frozen=True)
class TowerShape:
    """A transformer over one image or one window of text."""

    num_layers: int
    width: int
    mlp_width: int
    num_tokens: int
    projection_dim: int
    num_patches: int = 0
    patch_size_px: int = 0


@dataclass(frozen=True)
class ModelFlops:
    """Forward operations of one sample."""

    image_tower: int
    text_tower: int
    video_iam: int
    text_iam: int
    num_frames: int
    frozen: bool = False

    @property
    def forward(self) -> int:
        """Operations of one forward pass."""
        return self.image_tower + self.text_tower + self.video_iam + self.text_iam

    @property
    def training(self) -> int:
        """Operations of a forward and a backward pass, without recomputation; frozen towers have no backward pass."""
        iams = 3 * (self.video_iam + self.text_iam)
        return iams + (1 if self.frozen else 3) * (self.image_tower + self.text_tower)

    @property
    def per_frame(self) -> float:
        """Forward operations a frame, the text's included."""
        return self.forward / self.num_frames


def image_tower_shape(clip_config: Any) -> TowerShape:
    """Shape of the image tower of a CLIPConfig of transformers."""
    config = clip_config.vision_config
    num_patches = (config.image_size // config.patch_size) ** 2
    return TowerShape(
        num_layers=config.num_hidden_layers,
        width=config.hidden_size,
        mlp_width=config.intermediate_size,
        num_tokens=num_patches + 1,
        projection_dim=clip_config.projection_dim,
        num_patches=num_patches,
        patch_size_px=config.patch_size,
    )


def text_tower_shape(clip_config: Any) -> TowerShape:
    """Shape of the text tower of a CLIPConfig of transformers."""
    config = clip_config.text_config
    return TowerShape(
        num_layers=config.num_hidden_layers,
        width=config.hidden_size,
        mlp_width=config.intermediate_size,
        num_tokens=config.max_position_embeddings,
        projection_dim=clip_config.projection_dim,
    )


def tower_flops(shape: TowerShape, *, num_projected: int = 1) -> int:
    """Operations for one image or one window, with CLIP's projection of so many of its tokens."""
    linear = shape.num_tokens * shape.width * (4 * shape.width + 2 * shape.mlp_width)
    attention = 2 * shape.num_tokens**2 * shape.width
    patches = shape.num_patches * 3 * shape.patch_size_px**2 * shape.width
    projection = num_projected * shape.width * shape.projection_dim
    return 2 * (shape.num_layers * (linear + attention) + patches + projection)


def iam_flops(settings: IamSettings, *, num_features: int, feature_dim: int, n_iter: int) -> int:
    """Operations of the IAM for one sample."""
    n, d = settings.num_embeddings, settings.dim
    passes, num_blocks = 1 + n_iter, min(1 + n_iter, 2)
    key_value = 2 * num_features * feature_dim * d
    cross = 2 * n * d * d + 2 * n * num_features * d
    own = 4 * n * d * d + 2 * n * n * d
    mlps = 2 * 2 * n * d * round(d * settings.mlp_ratio)
    return 2 * (num_blocks * key_value + passes * (cross + own + mlps))


def model_flops(
    settings: ModelSettings,
    clip_config: Any,
    *,
    num_frames: int,
    n_iter_video: int,
    n_iter_text: int,
    num_windows: int = 1,
) -> ModelFlops:
    """Operations for one video of `num_frames` frames and one text of `num_windows` windows."""
    image, text, towers = image_tower_shape(clip_config), text_tower_shape(clip_config), settings.towers
    image_features = image.num_patches + int(towers.class_token)
    image_dim, text_dim = (shape.projection_dim if towers.projected else shape.width for shape in (image, text))
    return ModelFlops(
        image_tower=num_frames * tower_flops(image, num_projected=image_features if towers.projected else 0),
        text_tower=num_windows * tower_flops(text, num_projected=text.num_tokens if towers.projected else 0),
        video_iam=iam_flops(
            settings.iam, num_features=num_frames * image_features, feature_dim=image_dim, n_iter=n_iter_video
        ),
        text_iam=iam_flops(
            settings.iam, num_features=num_windows * text.num_tokens, feature_dim=text_dim, n_iter=n_iter_text
        ),
        num_frames=num_frames,
        frozen=towers.frozen,
    )
