"""Draws one filled, outlined, anti-aliased shape into a picture.

In: a float RGB picture [H, W, 3] in 0..255, changed in place, and a `Pose`. Signed distances are in units of the
shape's radius (negative inside), coverage follows from them, so edges are smooth at any size and angle.
Knows nothing of actions or words.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_OUTLINE = 0.11  # of the radius
_OUTLINE_RGB = np.array([10.0, 10.0, 12.0])


@dataclass(frozen=True)
class Pose:
    """Where a shape is: centre and radius in pixels, angle in radians (clockwise), alpha in 0..1."""

    x_px: float
    y_px: float
    radius_px: float
    angle: float = 0.0
    alpha: float = 1.0


def draw_shape(picture_HWC: Floats, shape: str, rgb: tuple[int, int, int], pose: Pose) -> None:
    """Paint `shape` over the picture; parts outside of the picture are cut off."""
    height_px, width_px = picture_HWC.shape[:2]
    reach = pose.radius_px * 1.15 + 2
    top, bottom = max(0, math.floor(pose.y_px - reach)), min(height_px, math.ceil(pose.y_px + reach))
    left, right = max(0, math.floor(pose.x_px - reach)), min(width_px, math.ceil(pose.x_px + reach))
    if top >= bottom or left >= right or pose.alpha <= 0:
        return
    y = (np.arange(top, bottom)[:, None] + 0.5 - pose.y_px) / pose.radius_px
    x = (np.arange(left, right)[None, :] + 0.5 - pose.x_px) / pose.radius_px
    cos, sin = math.cos(pose.angle), math.sin(pose.angle)
    distance = _DISTANCES[shape](cos * x + sin * y, cos * y - sin * x)
    part = picture_HWC[top:bottom, left:right]
    for inset, color in ((0.0, _OUTLINE_RGB), (_OUTLINE, np.array(rgb, dtype=np.float64))):
        cover = np.clip(0.5 - (distance + inset) * pose.radius_px, 0.0, 1.0)[..., None] * pose.alpha
        part += (color - part) * cover


def _circle(x: Floats, y: Floats) -> Floats:
    return np.asarray(np.hypot(x, y) - 0.95)


def _ring(x: Floats, y: Floats) -> Floats:
    return np.asarray(np.abs(np.hypot(x, y) - 0.72) - 0.27)


def _crescent(x: Floats, y: Floats) -> Floats:
    return np.asarray(np.maximum(np.hypot(x, y) - 1.0, 0.78 - np.hypot(x - 0.48, y)))


def _polygon(corners: list[tuple[float, float]]) -> Callable[[Floats, Floats], Floats]:
    """The signed distance to a closed polygon: nearest edge, with the sign from the even-odd rule."""
    edges = list(zip(corners, corners[1:] + corners[:1], strict=True))

    def distance(x: Floats, y: Floats) -> Floats:
        x, y = np.broadcast_arrays(x, y)
        nearest = np.full(x.shape, np.inf)
        inside = np.zeros(x.shape, dtype=bool)
        for (ax, ay), (bx, by) in edges:
            ex, ey = bx - ax, by - ay
            along = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0.0, 1.0)
            nearest = np.minimum(nearest, (x - ax - along * ex) ** 2 + (y - ay - along * ey) ** 2)
            if ay != by:
                inside ^= ((y < ay) != (y < by)) & (x < ax + (y - ay) * (ex / ey))
        return np.asarray(np.where(inside, -1.0, 1.0) * np.sqrt(nearest))

    return distance


def _around(radii: list[float], turn: float = -0.25) -> list[tuple[float, float]]:
    """Corners at equal angles; `turn` is where the first one points, in turns clockwise from the right."""
    angles = [2 * math.pi * (turn + index / len(radii)) for index in range(len(radii))]
    return [(radius * math.cos(a), radius * math.sin(a)) for radius, a in zip(radii, angles, strict=True)]


def _heart_corners() -> list[tuple[float, float]]:
    corners = []
    for index in range(28):
        a = 2 * math.pi * index / 28
        across = 16 * math.sin(a) ** 3
        up = 13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)
        corners.append((across / 16.5, -(up + 2.5) / 15.5))
    return corners


def _cross_corners(arm: float = 0.34) -> list[tuple[float, float]]:
    quarter = [(arm, -1.0), (arm, -arm), (1.0, -arm)]
    corners = []
    for _ in range(4):
        corners += quarter
        quarter = [(-y, x) for x, y in quarter]
    return corners


_DISTANCES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "circle": _circle,
    "ring": _ring,
    "crescent": _crescent,
    "square": _polygon([(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]),
    "triangle": _polygon(_around([1.1] * 3)),
    "star": _polygon(_around([1.12, 0.47] * 5)),
    "cross": _polygon(_cross_corners()),
    "diamond": _polygon([(0.0, -1.12), (0.66, 0.0), (0.0, 1.12), (-0.66, 0.0)]),
    "heart": _polygon(_heart_corners()),
}
