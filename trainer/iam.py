"""The iterative approximation module: features (B, M, C) of any length in, embeddings (B, N, D) out.

Paper: GEXIA §3.2. A learned base A^base is taken to A^0 by an unrolled block with weights of its own, then `n_iter`
times through one shared block: A^k = SA_1(CA_1(A^{k-1}, F)). The parameters do not depend on `n_iter`, which is chosen
at every call; at 0 the shared block is not run. A block's keys and values depend on F only, so they are computed once
and read by all of its passes.

Deviation: norms, residuals, MLPs and positions in time are not in the paper; each is a setting and can be off.
Knows no towers and no loss.
"""

# Tensors: B batch, M features, C their width, N embeddings, D their width, H heads, T frames, P features of one frame.

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.settings import IamSettings


class Iam(nn.Module):
    """One branch's module, for features of width `feature_dim`; `base_ND` lets branches share a base."""

    def __init__(self, settings: IamSettings, feature_dim: int, base_ND: nn.Parameter | None = None) -> None:
        super().__init__()
        self.base = new_base(settings) if base_ND is None else base_ND
        self.unrolled = ApproximationBlock(settings, feature_dim)
        self.shared = ApproximationBlock(settings, feature_dim)
        self.final_norm = nn.LayerNorm(settings.dim) if settings.final_norm else nn.Identity()

    def forward(self, features_BMC: Tensor, n_iter: int, key_mask_BM: Tensor | None = None) -> Tensor:
        """A^{n_iter} (B, N, D). The mask is true where a feature takes part; every row has at least one.

        Raises:
            ValueError: `n_iter` is negative, or the mask is not of type bool.
        """
        if n_iter < 0:
            raise ValueError(f"n_iter is {n_iter}; expected 0 (the unrolled block only) or more")
        if key_mask_BM is not None and key_mask_BM.dtype != torch.bool:  # attention would add floats to its scores
            raise ValueError(f"key_mask_BM is of {key_mask_BM.dtype}; expected torch.bool, true where a feature counts")
        mask_B11M = None if key_mask_BM is None else key_mask_BM[:, None, None, :]
        keys, values = self.unrolled.project_features(features_BMC)
        embeddings_BND = self.unrolled(self.base[None], keys, values, mask_B11M)
        if n_iter:
            keys, values = self.shared.project_features(features_BMC)
            for _ in range(n_iter):
                embeddings_BND = self.shared(embeddings_BND, keys, values, mask_B11M)
        return embeddings_BND

    def pool(self, embeddings_BND: Tensor) -> Tensor:
        """Mean over the N embeddings, (B, D), not of unit norm."""
        return self.final_norm(embeddings_BND).mean(dim=1)


class ApproximationBlock(nn.Module):
    """One set of weights {CA, SA, Q, K, V}: cross-attention to the features, then self-attention."""

    def __init__(self, settings: IamSettings, feature_dim: int) -> None:
        super().__init__()
        self.cross = CrossAttention(settings, feature_dim)
        self.cross_mlp = Mlp(settings) if settings.mlp_ratio else None
        self.self_attention = SelfAttention(settings)
        self.self_mlp = Mlp(settings) if settings.mlp_ratio else None

    def project_features(self, features_BMC: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, M, D/H): all that this block needs to know of the features."""
        return self.cross.project_features(features_BMC)

    def forward(self, embeddings_BND: Tensor, keys: Tensor, values: Tensor, mask_B11M: Tensor | None) -> Tensor:
        """One pass; embeddings of batch size 1 serve the whole batch."""
        embeddings_BND = self.cross(embeddings_BND, keys, values, mask_B11M)
        if self.cross_mlp is not None:
            embeddings_BND = self.cross_mlp(embeddings_BND)
        embeddings_BND = self.self_attention(embeddings_BND)
        return embeddings_BND if self.self_mlp is None else self.self_mlp(embeddings_BND)


class CrossAttention(nn.Module):
    """Queries from the embeddings, keys and values from the features, all projected to D."""

    def __init__(self, settings: IamSettings, feature_dim: int) -> None:
        super().__init__()
        self.num_heads, self.residual = settings.num_heads, settings.residual
        self.query_norm, self.feature_norm = _norm(settings, settings.dim), _norm(settings, feature_dim)
        self.query = _linear(settings.dim, settings.dim)
        self.key = _linear(feature_dim, settings.dim)
        self.value = _linear(feature_dim, settings.dim)
        self.output = _linear(settings.dim, settings.dim)

    def project_features(self, features_BMC: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, M, D/H)."""
        features_BMC = self.feature_norm(features_BMC)
        return (
            _split_heads(self.key(features_BMC), self.num_heads),
            _split_heads(self.value(features_BMC), self.num_heads),
        )

    def forward(self, embeddings_BND: Tensor, keys: Tensor, values: Tensor, mask_B11M: Tensor | None) -> Tensor:
        """One attention, with its residual where there is one."""
        # the base has batch size 1: its query is computed once and expanded
        queries = _split_heads(self.query(self.query_norm(embeddings_BND)), self.num_heads)
        queries = queries.expand(keys.shape[0], -1, -1, -1)
        attended = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask_B11M)
        result_BND = self.output(_join_heads(attended))
        return embeddings_BND + result_BND if self.residual else result_BND


class SelfAttention(nn.Module):
    """Attention of the N embeddings to each other."""

    def __init__(self, settings: IamSettings) -> None:
        super().__init__()
        self.num_heads, self.residual = settings.num_heads, settings.residual
        self.norm = _norm(settings, settings.dim)
        self.query = _linear(settings.dim, settings.dim)
        self.key = _linear(settings.dim, settings.dim)
        self.value = _linear(settings.dim, settings.dim)
        self.output = _linear(settings.dim, settings.dim)

    def forward(self, embeddings_BND: Tensor) -> Tensor:
        """One attention, with its residual where there is one."""
        normed_BND = self.norm(embeddings_BND)
        queries, keys, values = (
            _split_heads(linear(normed_BND), self.num_heads) for linear in (self.query, self.key, self.value)
        )
        result_BND = self.output(_join_heads(functional.scaled_dot_product_attention(queries, keys, values)))
        return embeddings_BND + result_BND if self.residual else result_BND


class Mlp(nn.Module):
    """Two linear maps with a GELU between them."""

    def __init__(self, settings: IamSettings) -> None:
        super().__init__()
        hidden = round(settings.dim * settings.mlp_ratio)
        self.residual = settings.residual
        self.norm = _norm(settings, settings.dim)
        self.up = _linear(settings.dim, hidden)
        self.down = _linear(hidden, settings.dim)

    def forward(self, embeddings_BND: Tensor) -> Tensor:
        """The MLP, with its residual where there is one."""
        result_BND = self.down(functional.gelu(self.up(self.norm(embeddings_BND))))
        return embeddings_BND + result_BND if self.residual else result_BND


class TemporalPosition(nn.Module):
    """A learned vector for a frame's place in the video, added to all features of the frame; zero at the start."""

    def __init__(self, num_positions: int, feature_dim: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(num_positions, feature_dim))

    def forward(self, features_BTPC: Tensor) -> Tensor:
        """Features with their frame's position; another number of frames than was learned is interpolated."""
        position_TC, num_frames = self.position, features_BTPC.shape[1]
        if num_frames != len(position_TC):
            position_TC = functional.interpolate(position_TC.T[None], size=num_frames, mode="linear")[0].T
        return features_BTPC + position_TC[None, :, None, :].to(features_BTPC.dtype)


def new_base(settings: IamSettings) -> nn.Parameter:
    """A fresh base embedding (N, D)."""
    base_ND = torch.empty(settings.num_embeddings, settings.dim)
    if settings.base_init == "trunc_normal":
        nn.init.trunc_normal_(base_ND, std=0.02, a=-0.04, b=0.04)
    else:
        nn.init.normal_(base_ND)
    return nn.Parameter(base_ND)


def start_values_at(iam: Iam, projection_DC: Tensor) -> None:
    """Let the unrolled block read what CLIP's projection reads: its values start as it, its output as identity.

    The start is near CLIP's own embedding, not equal to it: keys, self-attention and MLPs are still random.

    Raises:
        ValueError: the projection does not lead from this module's features to its width.
    """
    cross = iam.unrolled.cross
    if cross.value.weight.shape != projection_DC.shape:
        raise ValueError(
            f"value_init = 'clip_projection' needs a projection {tuple(cross.value.weight.shape)}, found one of "
            f"{tuple(projection_DC.shape)}; set iam.dim to CLIP's projection width and towers.projected to false"
        )
    with torch.no_grad():
        cross.value.weight.copy_(projection_DC)
        nn.init.eye_(cross.output.weight)


def _norm(settings: IamSettings, dim: int) -> nn.Module:
    return nn.LayerNorm(dim) if settings.norm == "pre" else nn.Identity()


def _linear(feature_dim: int, dim: int) -> nn.Linear:
    # keeps a signal's size, so that passes neither fade nor grow where there is no norm
    linear = nn.Linear(feature_dim, dim)
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _split_heads(x_BLD: Tensor, num_heads: int) -> Tensor:
    return x_BLD.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def _join_heads(x_BHLd: Tensor) -> Tensor:
    return x_BHLd.transpose(1, 2).flatten(2)
