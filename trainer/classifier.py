"""A linear head over the video branch: videos in, a score for every class out.

Paper: GEXIA §4.3, "we exclusively employ the video branch and add a fully-connected layer". The head reads the pooled
embedding before it is brought to unit length, so that its scale is its own. The text branch stays as it is and takes
no part; a class is a name, and its number the place of that name in the list.
"""

# Tensors: B batch, T frames, D embedding, K classes.

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gex_pipeline.errors import GexError
from trainer.model import VideoTextModel


class VideoClassifier(nn.Module):
    """The model with a head of K outputs."""

    def __init__(self, model: VideoTextModel, class_names: Sequence[str]) -> None:
        """Raises GexError: there are fewer than two classes, or two of one name."""
        super().__init__()
        num_names = len(set(class_names))
        if len(class_names) < 2 or num_names < len(class_names):
            raise GexError(f"{len(class_names)} classes with {num_names} names; expected two or more, apart")
        self.model = model
        self.head = nn.Linear(model.video_iam.base.shape[1], len(class_names))
        # 1,700 steps at the paper's rate of 1e-6 move a weight by less than 1e-3: what a head began with at random
        # would choose the class to the end. From zero only what was learned does, and how large it is does not matter
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.class_names = tuple(class_names)
        self._number_of = {name: number for number, name in enumerate(class_names)}

    def forward(self, video_BT3HW: Tensor, n_iter: int) -> Tensor:
        """Logits (B, K)."""
        pooled_BD = self.model.pool_video(video_BT3HW, n_iter)
        # in 32 bits at least: half precision would make classes equal that are not
        with torch.autocast(pooled_BD.device.type, enabled=False):
            logits: Tensor = self.head(pooled_BD.to(self.head.weight.dtype))
        return logits

    def freeze_what_rests(self) -> None:
        """Take what classification does not use out of training: the text branch and the temperature."""
        for part in (self.model.text_tower, self.model.text_iam):
            part.requires_grad_(False)
        self.model.logit_scale.requires_grad_(False)
        # a base that both branches share is the video's too
        self.model.video_iam.base.requires_grad_(True)

    def labels_of(self, names: Sequence[str]) -> Tensor:
        """Numbers (B,) of these classes.

        Raises:
            GexError: a name is not among the classes.
        """
        unknown = [name for name in names if name not in self._number_of]
        if unknown:
            raise GexError(f"{unknown[0]!r} is none of the {len(self.class_names)} classes")
        return torch.tensor([self._number_of[name] for name in names])
