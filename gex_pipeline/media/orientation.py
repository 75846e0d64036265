"""How a stored picture has to be turned to be upright: display matrix in, turned pixels out.

libav decodes pictures as they are stored and leaves the turning to the reader; the ffmpeg program
turns by itself.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import av
import numpy as np
from av.sidedata.sidedata import SideData
from numpy.typing import NDArray


@dataclass(frozen=True)
class Orientation:
    """First exchange the axes, then flip: that is every turn by quarters and every mirror image."""

    swaps_axes: bool = False
    flips_x: bool = False
    flips_y: bool = False

    @property
    def is_upright(self) -> bool:
        """Whether nothing has to be done."""
        return not (self.swaps_axes or self.flips_x or self.flips_y)

    def size_px(self, width_px: int, height_px: int) -> tuple[int, int]:
        """Width and height when upright."""
        return (height_px, width_px) if self.swaps_axes else (width_px, height_px)

    def upright(self, picture_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn a picture of shape (H, W, ...)."""
        if self.swaps_axes:
            picture_HW = np.swapaxes(picture_HW, 0, 1)
        if self.flips_x:
            picture_HW = picture_HW[:, ::-1]
        if self.flips_y:
            picture_HW = picture_HW[::-1]
        return np.ascontiguousarray(picture_HW)


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """Read the display matrix that comes with a decoded frame; an oblique one is taken to the nearest quarter."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(matrix, SideData):
        return Orientation()
    # x' = a x + c y and y' = b x + d y
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
    if abs(b) > abs(a):
        return Orientation(True, flips_x=c < 0, flips_y=b < 0)
    return Orientation(False, flips_x=a < 0, flips_y=d < 0)
