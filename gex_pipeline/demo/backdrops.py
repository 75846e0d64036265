"""Draws the textured backgrounds: two shades of one named colour in one named pattern.

In: pattern, colour, size in pixels, a seeded generator for scale and phase. Out: float RGB [H, W, 3] in 0..255.
Invariant: every pixel lies on the line between the two shades, so the colour's name stays true.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gex_pipeline.demo.vocabulary import BACKDROP_COLORS

Floats = NDArray[np.float64]


def draw_backdrop(pattern: str, color: str, size_px: tuple[int, int], rng: np.random.Generator) -> Floats:
    """The background picture, `size_px` = (height, width)."""
    height_px, width_px = size_px
    # Units of one eleventh of the height, so that the texture looks the same at every resolution.
    y, x = np.mgrid[0:height_px, 0:width_px].astype(np.float64) * (11.0 / height_px)
    scale = rng.uniform(0.85, 1.3)
    x, y = x / scale + rng.uniform(0, 8), y / scale + rng.uniform(0, 8)
    blend_HW = _PATTERNS[pattern](x, y, rng)[..., None]
    first, second = (np.array(shade, dtype=np.float64) for shade in BACKDROP_COLORS[color])
    return first + (second - first) * blend_HW


def _wave(phase: Floats, sharpness: float = 4.0) -> Floats:
    """A wave of period one between 0 and 1 with softened edges."""
    return np.asarray(np.clip(0.5 + sharpness * np.sin(2 * math.pi * phase), 0.0, 1.0))


def _vertical_stripes(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    return _wave(x / 2)


def _horizontal_stripes(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    return _wave(y / 2)


def _checks(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    return np.asarray(np.abs(_wave(x / 2.6) - _wave(y / 2.6)))


def _dots(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    row = np.floor(y / 1.5)
    along = (x / 1.5 + 0.5 * (row % 2)) % 1.0 - 0.5
    return np.asarray(np.clip((0.33 - np.hypot(along, (y / 1.5) % 1.0 - 0.5)) * 12 + 0.5, 0.0, 1.0))


def _bricks(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    row = np.floor(y / 1.1)
    along = (x / 2.4 + 0.5 * (row % 2)) % 1.0
    to_joint = np.minimum(np.minimum(along, 1 - along) * 2.4, np.minimum((y / 1.1) % 1.0, 1 - (y / 1.1) % 1.0) * 1.1)
    return np.asarray(np.clip((0.14 - to_joint) * 9 + 0.5, 0.0, 1.0))


def _waves(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    return _wave(y / 1.8 + 0.32 * np.sin(2 * math.pi * x / 4.0), 2.0)


def _speckles(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    # Nearest cell of a random table: grains of about two pixels at 144 px, which survive H.264.
    table = (rng.random((64, 64)) < 0.3).astype(np.float64)
    return np.asarray(table[np.floor(y * 3.2).astype(int) % 64, np.floor(x * 3.2).astype(int) % 64])


def _chevrons(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    return _wave(y / 2 + np.abs((x / 3) % 1.0 - 0.5) * 1.4)


def _grid(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    to_line = np.minimum(np.abs((x / 1.7) % 1.0 - 0.5), np.abs((y / 1.7) % 1.0 - 0.5)) * 1.7
    return np.asarray(np.clip((0.16 - to_line) * 9 + 0.5, 0.0, 1.0))


def _gradient(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    ramp = math.cos(a := rng.uniform(0, 2 * math.pi)) * x + math.sin(a) * y
    return np.asarray((ramp - ramp.min()) / (ramp.max() - ramp.min()))


_PATTERNS: dict[str, Callable[[Floats, Floats, np.random.Generator], Floats]] = {
    "vertical_stripes": _vertical_stripes,
    "horizontal_stripes": _horizontal_stripes,
    "checks": _checks,
    "dots": _dots,
    "bricks": _bricks,
    "waves": _waves,
    "speckles": _speckles,
    "chevrons": _chevrons,
    "grid": _grid,
    "gradient": _gradient,
}
