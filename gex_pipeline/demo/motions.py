"""Where the shapes of a scene are, frame by frame, for each action of the vocabulary.

In: a `Stage`. Out: one `Track` for the main shape and, where a second shape takes part, one for it. Lengths are shares
of the picture's height (x from 0 to `aspect`, y from 0 to 1, downwards), angles radians clockwise, times seconds.
Invariant: an action's direction and kind are fixed by its name; the generator varies only what no caption mentions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Stage:
    """What a motion may use: progress 0..1 and seconds of each frame, radii, and a generator for free choices."""

    progress: Floats
    seconds: Floats
    aspect: float
    radius: float
    other_radius: float
    rng: np.random.Generator

    def anywhere_x(self) -> float:
        """A resting place near the middle."""
        return float(self.rng.uniform(0.4, 0.6)) * self.aspect

    def anywhere_y(self) -> float:
        """A resting height near the middle."""
        return float(self.rng.uniform(0.42, 0.58))

    def turns(self) -> float:
        """Clockwise or not."""
        return float(self.rng.choice([-1.0, 1.0]))


@dataclass(frozen=True)
class Track:
    """A shape's path; each field is a number or one number a frame."""

    x: Floats | float
    y: Floats | float
    radius: Floats | float
    angle: Floats | float = 0.0
    alpha: Floats | float = 1.0


Tracks = tuple[Track, Track | None]


def move(action: str, stage: Stage) -> Tracks:
    """The tracks of `action`."""
    return _MOTIONS[action](stage)


def _across(stage: Stage, margin: float = 0.5) -> Floats:
    """From the left edge to the right, `margin` radii from either."""
    low, high = margin * stage.radius, stage.aspect - margin * stage.radius
    return low + (high - low) * stage.progress


def _mirrored(track: Track, aspect: float) -> Track:
    return Track(aspect - track.x, track.y, track.radius, -1.0 * track.angle, track.alpha)


def _leftward(motion: Callable[[Stage], Tracks]) -> Callable[[Stage], Tracks]:
    def mirrored(stage: Stage) -> Tracks:
        main, other = motion(stage)
        return _mirrored(main, stage.aspect), other and _mirrored(other, stage.aspect)

    return mirrored


def _either_way(motion: Callable[[Stage], Tracks]) -> Callable[[Stage], Tracks]:
    def chosen(stage: Stage) -> Tracks:
        return (_leftward(motion) if stage.turns() < 0 else motion)(stage)

    return chosen


def _slide(stage: Stage) -> Tracks:
    return Track(_across(stage), stage.rng.uniform(0.3, 0.7), stage.radius), None


def _rise(stage: Stage) -> Tracks:
    y = 1 - 0.5 * stage.radius - (1 - stage.radius) * stage.progress
    return Track(stage.rng.uniform(0.3, 0.7) * stage.aspect, y, stage.radius), None


def _fall(stage: Stage) -> Tracks:
    y = 0.4 * stage.radius + (1 - 1.3 * stage.radius) * stage.progress**2
    return Track(stage.rng.uniform(0.3, 0.7) * stage.aspect, y, stage.radius), None


def _roll(stage: Stage) -> Tracks:
    x = _across(stage)
    return Track(x, stage.rng.uniform(0.45, 0.7), stage.radius, angle=(x - x[0]) / (0.85 * stage.radius)), None


def _zigzag(stage: Stage) -> Tracks:
    tooth = 2 * np.abs((stage.progress * stage.rng.choice([2.5, 3.0, 3.5]) + 0.25) % 1.0 - 0.5)  # triangle wave, 0..1
    return Track(_across(stage), 0.5 + 0.6 * (tooth - 0.5), stage.radius), None


def _bounce(stage: Stage) -> Tracks:
    hops = np.abs(np.sin(math.pi * stage.seconds / stage.rng.uniform(0.7, 0.9)))
    ground = 1 - 1.05 * stage.radius
    return Track(stage.rng.uniform(0.35, 0.65) * stage.aspect, ground - 0.45 * hops, stage.radius), None


def _spin(stage: Stage) -> Tracks:
    angle = stage.turns() * 2 * math.pi * stage.seconds / stage.rng.uniform(1.5, 2.0)
    return Track(stage.anywhere_x(), stage.anywhere_y(), stage.radius, angle=angle), None


def _grow(stage: Stage) -> Tracks:
    return Track(0.5 * stage.aspect, 0.5, 0.05 + 0.35 * stage.progress), None


def _shrink(stage: Stage) -> Tracks:
    return Track(0.5 * stage.aspect, 0.5, 0.40 - 0.36 * stage.progress), None


def _pulse(stage: Stage) -> Tracks:
    swell = np.sin(2 * math.pi * stage.seconds / stage.rng.uniform(0.9, 1.2))
    return Track(stage.anywhere_x(), 0.5, 0.21 + 0.13 * swell), None


def _blink(stage: Stage) -> Tracks:
    is_on = (stage.seconds / stage.rng.uniform(0.6, 0.8)) % 1.0 < 0.55
    return Track(stage.anywhere_x(), stage.anywhere_y(), stage.radius, alpha=is_on.astype(np.float64)), None


def _fade(stage: Stage) -> Tracks:
    alpha = np.clip(1.12 - 1.12 * stage.progress, 0.0, 1.0)
    return Track(stage.anywhere_x(), stage.anywhere_y(), stage.radius, alpha=alpha), None


def _shake(stage: Stage) -> Tracks:
    x = stage.anywhere_x() + 0.045 * np.sin(2 * math.pi * stage.seconds * 3.4)
    y = stage.anywhere_y() + 0.03 * np.sin(2 * math.pi * stage.seconds * 4.3)
    return Track(x, y, stage.radius, angle=0.16 * np.sin(2 * math.pi * stage.seconds * 3.9)), None


def _swing(stage: Stage) -> Tracks:
    lean = 0.75 * np.sin(2 * math.pi * stage.seconds / stage.rng.uniform(1.6, 2.0))
    length = 0.65
    x = 0.5 * stage.aspect + length * np.sin(lean)
    return Track(x, 0.05 + length * np.cos(lean), stage.radius, angle=-lean), None


def _loop(stage: Stage) -> Tracks:
    way = stage.turns() * 2 * math.pi * stage.seconds / stage.rng.uniform(1.6, 2.0) + stage.rng.uniform(0, 6)
    reach = 0.47 - stage.radius
    return Track(0.5 * stage.aspect + 1.25 * reach * np.cos(way), 0.5 + reach * np.sin(way), stage.radius), None


def _orbit(stage: Stage) -> Tracks:
    way = stage.turns() * 2 * math.pi * stage.seconds / stage.rng.uniform(1.6, 2.0) + stage.rng.uniform(0, 6)
    reach = stage.radius + stage.other_radius + 0.03
    main = Track(0.5 * stage.aspect + 1.15 * reach * np.cos(way), 0.5 + reach * np.sin(way), stage.radius)
    return main, Track(0.5 * stage.aspect, 0.5, stage.other_radius)


def _pass(stage: Stage) -> Tracks:
    is_above = stage.turns()
    main = Track(_across(stage), 0.5 - 0.18 * is_above, stage.radius)
    y = 0.5 + is_above * min(0.5 - stage.other_radius, 0.1 + stage.other_radius)
    return main, Track(stage.aspect * stage.rng.uniform(0.42, 0.58), y, stage.other_radius)


def _approach(stage: Stage) -> Tracks:
    y = stage.anywhere_y()
    goal = 0.74 * stage.aspect
    stop = goal - stage.radius - stage.other_radius - 0.02
    way = np.clip(stage.progress / 0.75, 0.0, 1.0)
    start = -0.2 * stage.radius
    return Track(start + (stop - start) * way, y, stage.radius), Track(goal, y, stage.other_radius)


def _leave(stage: Stage) -> Tracks:
    y = stage.anywhere_y()
    home = 0.2 * stage.aspect
    start = home + stage.radius + stage.other_radius + 0.02
    way = np.clip((stage.progress - 0.15) / 0.85, 0.0, 1.0)
    x = start + (stage.aspect + 0.3 * stage.radius - start) * way
    return Track(x, y, stage.radius), Track(home, y, stage.other_radius)


def _chase(stage: Stage) -> Tracks:
    ahead = stage.radius + stage.other_radius + 0.08
    x = (stage.aspect - 0.5 * ahead) * stage.progress
    y = stage.anywhere_y() + 0.1 * np.sin(2 * math.pi * stage.progress * 1.5)
    other_y = stage.anywhere_y() + 0.1 * np.sin(2 * math.pi * (stage.progress * 1.5 + 0.2))
    return Track(x, y, stage.radius), Track(x + ahead, other_y, stage.other_radius)


def _push(stage: Stage) -> Tracks:
    y = stage.anywhere_y()
    touching = stage.radius + stage.other_radius - 0.01
    x = 0.1 * stage.radius + (stage.aspect - touching - 0.6 * stage.other_radius) * stage.progress
    other_x = np.maximum(0.52 * stage.aspect, x + touching)
    return Track(x, y, stage.radius), Track(other_x, y, stage.other_radius)


_MOTIONS: dict[str, Callable[[Stage], Tracks]] = {
    "slide_right": _slide,
    "slide_left": _leftward(_slide),
    "rise": _rise,
    "fall": _fall,
    "roll_right": _roll,
    "roll_left": _leftward(_roll),
    "zigzag_right": _zigzag,
    "zigzag_left": _leftward(_zigzag),
    "bounce": _bounce,
    "spin": _spin,
    "grow": _grow,
    "shrink": _shrink,
    "pulse": _pulse,
    "blink": _blink,
    "fade": _fade,
    "shake": _shake,
    "swing": _swing,
    "loop": _loop,
    "orbit": _orbit,
    "pass": _either_way(_pass),
    "approach": _either_way(_approach),
    "leave": _either_way(_leave),
    "chase": _either_way(_chase),
    "push": _either_way(_push),
}
