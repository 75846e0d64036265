"""Looks at clips as a viewer would: decodes a file and finds the vocabulary's colours in it; knows no story."""

from __future__ import annotations

import av
import numpy as np

from gex_pipeline.demo.vocabulary import BACKDROP_COLORS, SHAPE_COLORS

_SHADES = {**{name: [rgb] for name, rgb in SHAPE_COLORS.items()}, **BACKDROP_COLORS}
_NOTHING = 255
_NEAR_ENOUGH = 45  # of 255, as the eye calls a colour


def decode(path):
    """RGB frames [T, H, W, 3]."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def _name_every_color():
    """The index of the colour name for each RGB value in steps of eight."""
    values = np.stack(np.meshgrid(*[np.arange(32) * 8 + 4] * 3, indexing="ij"), axis=-1)
    by_name = [
        np.min([np.square(values - np.array(rgb)).sum(-1) for rgb in shades], axis=0) for shades in _SHADES.values()
    ]
    return np.where(np.min(by_name, axis=0) < _NEAR_ENOUGH**2, np.argmin(by_name, axis=0), _NOTHING)


_NAME_OF = _name_every_color()


def color_masks(frames_THWC):
    """For each colour of the vocabulary the pixels [T, H, W] that would be called by its name."""
    steps = frames_THWC >> 3
    names = _NAME_OF[steps[..., 0], steps[..., 1], steps[..., 2]]
    return {name: names == index for index, name in enumerate(_SHADES)}


def path_of(mask_THW):
    """Centre (x, y) as shares of width and height, and area in pixels, in each frame; NaN where there is nothing."""
    columns, rows = mask_THW.sum(1), mask_THW.sum(2)
    area = columns.sum(1).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        x = columns @ np.arange(columns.shape[1]) / area / columns.shape[1]
        y = rows @ np.arange(rows.shape[1]) / area / rows.shape[1]
    return x, y, area
