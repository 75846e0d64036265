"""A hundred losses of a tiny model, stored beside this file: a change without new mathematics leaves them as they are.

Weights and data are drawn by NumPy's legacy generator, whose numbers are the same in every version; the steps go
through all four granularities. To store a new curve, after a change that is meant to change it:
``python -m tests.numerics.loss_curve``
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from tests.trainer.tiny_models import END, IMAGE_PX, MAX_TOKENS, START, tiny_model
from trainer.loss import same_source, vtc_loss
from trainer.model import VideoTextModel, parameter_groups
from trainer.tokens import TextTokens

STORED = Path(__file__).with_name("loss_100_steps.json")
NUM_STEPS = 100
NUM_ROWS = 6
GRANULARITIES = ((2, 1, 1), (4, 3, 3), (4, 3, 1), (1, 0, 1))  # frames, iterations of video, of text
SOURCES = torch.tensor([0, 1, 2, 3, 0, 4])


def draw_model(draw: np.random.RandomState) -> VideoTextModel:
    model = tiny_model()
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if (parameter.ndim > 1 and "temporal" not in name) or name.endswith("class_embedding"):
                parameter.copy_(torch.from_numpy(draw.normal(0, 0.2, tuple(parameter.shape))))
    return model


def draw_rows(draw: np.random.RandomState, num_frames: int) -> tuple[torch.Tensor, TextTokens]:
    video = draw.randint(0, 256, (NUM_ROWS, num_frames, 3, IMAGE_PX, IMAGE_PX), dtype=np.uint8)
    lengths = draw.randint(1, MAX_TOKENS - 1, (NUM_ROWS, 1))
    ids = draw.randint(0, START, (NUM_ROWS, MAX_TOKENS))
    places = np.arange(MAX_TOKENS)[None]
    ids[:, 0] = START
    ids[places > lengths] = END
    texts = TextTokens(
        torch.from_numpy(ids)[:, None],
        torch.from_numpy(places <= lengths + 1)[:, None],
        torch.zeros(NUM_ROWS, dtype=torch.bool),
    )
    return torch.from_numpy(video), texts


def train() -> list[float]:
    draw = np.random.RandomState(0)
    model = draw_model(draw)
    batches = [draw_rows(draw, num_frames) for num_frames, _, _ in GRANULARITIES]
    groups = parameter_groups(model, learning_rate_towers=1e-4, learning_rate=1e-3, weight_decay=0.2)
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-6, foreach=True)
    losses, same_BG = [], same_source(SOURCES[:, None])
    for step in range(NUM_STEPS):
        (video, texts), (_, n_iter_video, n_iter_text) = batches[step % 4], GRANULARITIES[step % 4]
        optimiser.zero_grad()
        loss = vtc_loss(model(video, texts, n_iter_video=n_iter_video, n_iter_text=n_iter_text), same_BG)
        loss.backward()
        optimiser.step()
        model.bound_logit_scale()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    torch.set_num_threads(1)
    STORED.write_text(json.dumps([float(f"{loss:.12g}") for loss in train()], indent=0) + "\n", encoding="utf-8")
