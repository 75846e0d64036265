"""What the model is: one frozen tree from one TOML. Every point the paper leaves open is one field.

Two trees are shipped: ``iam-paper`` (nothing that the paper does not name, but what a model cannot be without) and
``iam-recommended`` (the defaults below). Imports pydantic only, so that settings can be checked without any model
library. Says nothing of data, optimiser or machines.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

_SHIPPED = Path(__file__).parent / "configs"

Part = Literal["image_tower", "text_tower", "video_iam", "text_iam", "temporal_position", "logit_scale", "head"]
"""A part of a model whose weights another one can start from; `head` is a classifier's."""
PARTS: tuple[Part, ...] = get_args(Part)
TOWERS: tuple[Part, ...] = ("image_tower", "text_tower")


class IamSettings(BaseModel):
    """The iterative approximation module; both branches have one of this form, with their own weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_embeddings: int = Field(default=64, ge=1)
    """N, vectors of the base embedding."""
    dim: int = Field(default=512, ge=1)
    """D, width of the base embedding and of the common space."""
    num_heads: int = Field(default=8, ge=1)
    """Heads of every attention; divides `dim`."""
    mlp_ratio: float = Field(default=1.0, ge=0)
    """Hidden width, in widths, of the MLP after each attention; 0: no MLP."""
    residual: bool = True
    """Whether what goes into an attention or an MLP is added to what comes out."""
    norm: Literal["pre", "none"] = "pre"
    """LayerNorm before every attention (of queries and of features, each its own) and every MLP, or nowhere."""
    final_norm: bool = True
    """LayerNorm of the last embedding before its mean; without it long vectors weigh more."""
    base_init: Literal["trunc_normal", "normal"] = "trunc_normal"
    """How the base embedding starts: standard deviation 0.02, cut at two of them, or 1."""
    value_init: Literal["random", "clip_projection"] = "random"
    """How values of the unrolled block start: at random, or as CLIP's own projection into its common space."""
    temporal_position: Literal["learned", "none"] = "learned"
    """Embedding of a frame's place in the video, zero at the start; without it frames are a set (video only)."""
    num_temporal_positions: int = Field(default=32, ge=1)
    """Places that are learned; videos of another number of frames interpolate between them."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.dim % self.num_heads:
            raise ValueError(f"iam.dim is {self.dim}, iam.num_heads {self.num_heads}; the heads must divide the width")
        return self


class ClipShape(BaseModel):
    """A CLIP of this shape with random weights, and a vocabulary learned from the texts of the data set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    patch_px: int = Field(default=16, ge=1)
    """Side of a patch; divides the side of a frame, which the data's settings say."""
    width: int = Field(default=128, ge=1)
    """Width of the features of both towers."""
    num_layers: int = Field(default=4, ge=1)
    """Layers of each tower."""
    num_heads: int = Field(default=4, ge=1)
    """Heads of every layer; divides `width`."""
    max_tokens: int = Field(default=77, ge=3)
    """Tokens of a text, the two that begin and end it included."""
    num_merges: int = Field(default=4000, ge=0)
    """Pairs of symbols that the vocabulary joins at most; it has 514 entries without them."""
    initializer_factor: float = Field(default=1.0, gt=0)
    """How large CLIP's first weights are, in those it was published with."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.num_heads:
            raise ValueError(f"width is {self.width}, num_heads {self.num_heads}; the heads must divide the width")
        return self


class TowerSettings(BaseModel):
    """CLIP's image and text encoder, and which of their features the modules read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clip: str = Field(default="openai/clip-vit-base-patch32", min_length=1)
    """Local directory or hub id of a CLIP in the format of transformers."""
    shape: ClipShape | None = None
    """A CLIP to be made in place of that one, from scratch."""
    revision: str | None = None
    """Revision of a hub model: branch, tag or commit."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """Weights of the checkpoint, or its configuration only and a start from scratch."""
    frozen: bool = False
    """Whether both towers stay as they are and take no gradient."""
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    """Activation the checkpoint was trained with; another one in its configuration is an error."""
    class_token: bool = True
    """Whether a frame's class token is among its features (P = 50 for ViT-B/32) or its patches only (P = 49)."""
    projected: bool = False
    """Whether features go through CLIP's projections into its common space."""
    long_text: Literal["truncate", "windows"] = "truncate"
    """What becomes of text beyond the tower's length: cut, or read in several windows whose features are joined."""
    max_windows: int = Field(default=8, ge=1)
    """Most windows of one text; what is beyond them is cut."""
    mask_padding: bool = True
    """Whether tokens after a text's end are hidden from the module."""


class ModelSettings(BaseModel):
    """Towers, modules and the temperature."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    towers: TowerSettings = TowerSettings()
    iam: IamSettings = IamSettings()
    shared_base: bool = False
    """Whether both branches approximate from one base embedding or from one each."""
    initial_temperature: float = Field(default=0.07, gt=0)
    """τ at the start, whatever a checkpoint of CLIP says."""
    max_logit_scale: float = Field(default=100.0, gt=1)
    """Bound of 1/τ, by default CLIP's; the paper names none. 1e6 is as good as none, and 32-bit floats hold it."""


def read_model_settings(source: str | Path) -> ModelSettings:
    """Settings from the table ``[model]`` of a shipped tree (``iam-paper``, ``iam-recommended``) or of a TOML file.

    Raises:
        FileNotFoundError: there is no such tree and no such file.
        ValueError: the file has no such table, or a key or value in it is wrong.
    """
    file = _SHIPPED / f"{source}.toml" if str(source) in shipped_names() else Path(source)
    if not file.is_file():
        raise FileNotFoundError(f"no model settings {str(source)!r}; expected a TOML file or one of {shipped_names()}")
    table = tomllib.loads(file.read_text(encoding="utf-8")).get("model")
    if not isinstance(table, dict):
        raise ValueError(f"{file.name}: expected a table [model], found none")
    return ModelSettings.model_validate(table)


def shipped_names() -> list[str]:
    """Names of the trees that come with the package."""
    return sorted(file.stem for file in _SHIPPED.glob("iam-*.toml"))
