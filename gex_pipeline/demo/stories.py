"""Makes up the sources of a corpus: who does what before which background, when, under which ids.

In: number of sources, seed, frames a second. Out: `Source`s with their `Clip`s in time order; no pixels, no files.
Invariants: the same arguments give the same sources; times are whole frames and whole milliseconds; the clips of one
source do not overlap; the first four sources hold 4, 8, 7 and 2 clips, about a quarter of all hold fewer than four.
"""

from __future__ import annotations

import math
import random
import string
from collections.abc import Iterator
from dataclasses import dataclass

from gex_pipeline.demo.captions import Actor, Backdrop, Scene, caption
from gex_pipeline.demo.vocabulary import (
    ACTIONS,
    BACKDROP_COLORS,
    MAX_PARTNER_ACTIONS,
    PATTERNS,
    ROUND_SHAPES,
    SHAPE_COLORS,
    SHAPES,
    SIZES,
    stands_out,
)

_ID_LETTERS = string.ascii_letters + string.digits + "-_"
_CHANNELS = (
    "paper shapes",
    "small geometry",
    "moving forms",
    "shape theater",
    "color lab",
    "flat world",
    "tin toys",
    "the screen room",
)
_SOURCES_A_CHANNEL = 6
_FIRST_COUNTS = (4, 8, 7, 2)  # what planted faults count on: one group on the edge, spare clips in two others


@dataclass(frozen=True)
class Clip:
    """One cut of a source, `[start_frame, start_frame + num_frames)`, with what it shows."""

    scene: Scene
    caption: str
    start_frame: int
    num_frames: int


@dataclass(frozen=True)
class Source:
    """One made-up video."""

    youtube_id: str
    channel: str
    clips: tuple[Clip, ...]


def seeded(*names: object) -> random.Random:
    """A generator of its own for each sequence of names, so that no choice moves another."""
    return random.Random("/".join(map(str, names)))  # noqa: S311 - draws pictures, guards nothing


def make_sources(num_sources: int, seed: int, fps: int) -> list[Source]:
    """`num_sources` sources; more sources with the same seed begin with the same ones."""
    actors = _main_actors(seeded(seed, "actors"))
    taken: set[str] = set()
    sources = []
    for index in range(num_sources):
        rng = seeded(seed, "source", index)
        youtube_id = _youtube_id(index, rng)
        while youtube_id in taken:
            youtube_id = _youtube_id(index, rng)
        taken.add(youtube_id)
        scenes = make_story(_num_clips(index, rng), rng, actor=next(actors))
        sources.append(Source(youtube_id, _channel(index), _cut(scenes, fps, rng)))
    return sources


def make_story(num_scenes: int, rng: random.Random, *, actor: Actor | None = None) -> list[Scene]:
    """Scenes of one main shape: no action twice, at most one other shape, one or more backgrounds."""
    actor = actor or Actor(rng.choice(list(SHAPES)), rng.choice(list(SHAPE_COLORS)), rng.choice(list(SIZES)))
    other = Actor(
        rng.choice([shape for shape in SHAPES if shape != actor.shape]),
        rng.choice([color for color in SHAPE_COLORS if color != actor.color]),
        rng.choice(["small", "medium"]),
    )
    actions = _choose_actions(actor, num_scenes, rng)
    backdrops = _choose_backdrops(actor, other, num_scenes, rng)
    return [
        Scene(actor, action, backdrop, other if ACTIONS[action].needs_other else None)
        for action, backdrop in zip(actions, backdrops, strict=True)
    ]


def _choose_actions(actor: Actor, num_scenes: int, rng: random.Random) -> list[str]:
    able = [
        name
        for name, action in ACTIONS.items()
        if actor.size in action.sizes and not (action.turns and actor.shape in ROUND_SHAPES)
    ]
    with_other = [name for name in able if ACTIONS[name].needs_other]
    alone = [name for name in able if not ACTIONS[name].needs_other]
    num_with_other = min(rng.choice([0, 1, 1, 2]), MAX_PARTNER_ACTIONS, num_scenes)
    actions = rng.sample(with_other, num_with_other) + rng.sample(alone, num_scenes - num_with_other)
    rng.shuffle(actions)
    return actions


def _choose_backdrops(actor: Actor, other: Actor, num_scenes: int, rng: random.Random) -> list[Backdrop]:
    colors = [c for c in BACKDROP_COLORS if stands_out(actor.color, c) and stands_out(other.color, c)]
    by_noun: dict[str, list[str]] = {}
    for name, pattern in PATTERNS.items():
        by_noun.setdefault(pattern.noun, []).append(name)
    num_backdrops = min(num_scenes, rng.choice([1, 1, 1, 2, 2, num_scenes]))
    nouns = rng.sample(list(by_noun), num_backdrops)
    chosen = [Backdrop(rng.choice(by_noun[noun]), rng.choice(colors)) for noun in nouns]
    changes = sorted(rng.sample(range(1, num_scenes), num_backdrops - 1))
    return [chosen[sum(scene >= change for change in changes)] for scene in range(num_scenes)]


def _main_actors(rng: random.Random) -> Iterator[Actor]:
    """Every main shape once, in random order, and again from the start when all have been used."""
    everyone = [Actor(shape, color, size) for shape in SHAPES for color in SHAPE_COLORS for size in SIZES]
    rng.shuffle(everyone)
    while True:
        yield from everyone


def _num_clips(index: int, rng: random.Random) -> int:
    if index < len(_FIRST_COUNTS):
        return _FIRST_COUNTS[index]
    return rng.randint(1, 3) if index % 4 == 3 else rng.randint(4, 8)


def _youtube_id(index: int, rng: random.Random) -> str:
    letters = "".join(rng.choice(_ID_LETTERS) for _ in range(11))
    # The ids that break command lines and path parsers, on purpose and often enough to meet them.
    if index % 6 == 1:
        return "-" + letters[1:]
    return letters[:-1] + "_" if index % 6 == 4 else letters


def _channel(index: int) -> str:
    place = index // _SOURCES_A_CHANNEL
    name = _CHANNELS[place % len(_CHANNELS)]
    season = place // len(_CHANNELS)
    return f"{name} {season + 1}" if season else name


def _cut(scenes: list[Scene], fps: int, rng: random.Random) -> tuple[Clip, ...]:
    step = fps // math.gcd(fps, 1000)  # frames between two times that are whole milliseconds
    longest = range(math.ceil(2 * fps / step), 4 * fps // step + 1)
    start = step * rng.randrange(0, 20)
    clips = []
    for scene in scenes:
        num_frames = step * rng.choice(longest)
        clips.append(Clip(scene, caption(scene, rng), start, num_frames))
        start += num_frames
        if rng.random() < 0.2:  # InternVid leaves out what it could not describe
            start += step * rng.randrange(1, 12)
    return tuple(clips)
