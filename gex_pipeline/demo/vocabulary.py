"""The closed vocabulary of the demo: shapes, colours, sizes, patterns and actions, with every word a caption may use.

In: nothing. Out: constant tables. Invariant: each entry looks unlike every other entry of its table at 112 px, and
two entries of one table share no caption wording, so that a caption tells one scene from another.
Does not draw (`shapes`, `backdrops`, `scenes`) and does not build sentences (`captions`).
"""

from __future__ import annotations

from dataclasses import dataclass

RGB = tuple[int, int, int]

# Saturated, for shapes.
SHAPE_COLORS: dict[str, RGB] = {
    "red": (222, 24, 28),
    "orange": (255, 136, 0),
    "yellow": (255, 228, 20),
    "green": (36, 186, 52),
    "blue": (32, 92, 250),
    "purple": (138, 36, 196),
    "pink": (255, 130, 196),
    "white": (250, 250, 250),
    "cyan": (20, 222, 238),
}

# Muted, two shades each, for what is behind them.
BACKDROP_COLORS: dict[str, tuple[RGB, RGB]] = {
    "gray": ((92, 92, 92), (138, 138, 138)),
    "brown": ((84, 50, 26), (128, 84, 48)),
    "beige": ((222, 206, 172), (186, 164, 124)),
    "navy": ((12, 18, 54), (34, 46, 104)),
    "olive": ((72, 76, 20), (112, 118, 46)),
    "maroon": ((70, 8, 22), (112, 28, 44)),
    "teal": ((8, 70, 76), (26, 112, 116)),
    "lavender": ((190, 180, 226), (152, 140, 198)),
}

# Words of each shape; the first is the one that summaries use.
SHAPES: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "disc"),
    "square": ("square",),
    "triangle": ("triangle",),
    "star": ("star",),
    "ring": ("ring", "hoop"),
    "cross": ("cross", "plus sign"),
    "heart": ("heart",),
    "crescent": ("crescent", "crescent moon"),
    "diamond": ("diamond",),
}

# Turning these changes nothing that can be seen, so no caption may say that they turn.
ROUND_SHAPES = frozenset({"circle", "ring"})

# Radius as a share of the picture's height. A medium shape is the unmarked case: captions give it no size word.
SIZES: dict[str, float] = {"small": 0.11, "medium": 0.17, "large": 0.26}
SIZE_WORDS: dict[str, tuple[str, ...]] = {"small": ("small", "tiny"), "medium": ("",), "large": ("large", "big")}


@dataclass(frozen=True)
class Pattern:
    """How captions and summaries name a textured background; `{c}` is its colour, `{a}` the article before it."""

    phrases: tuple[str, ...]
    noun: str
    article: bool = False  # whether the noun is one thing ("a grid") and not many ("stripes")


PATTERNS: dict[str, Pattern] = {
    "vertical_stripes": Pattern(("vertical {c} stripes", "{a} {c} background with vertical stripes"), "stripes"),
    "horizontal_stripes": Pattern(("horizontal {c} stripes", "{a} {c} background with horizontal stripes"), "stripes"),
    "checks": Pattern(("{c} checks", "{a} {c} checkered background"), "checks"),
    "dots": Pattern(("{c} dots", "{a} {c} dotted background"), "dots"),
    "bricks": Pattern(("{c} bricks", "{a} {c} brick wall"), "bricks"),
    "waves": Pattern(("{c} waves", "{a} {c} wavy background"), "waves"),
    "speckles": Pattern(("{c} speckles", "a speckled {c} background"), "speckles"),
    "chevrons": Pattern(("{c} chevrons", "{a} {c} chevron pattern"), "chevrons"),
    "grid": Pattern(("{a} {c} grid", "{a} {c} background with grid lines"), "grid", article=True),
    "gradient": Pattern(("{a} {c} gradient", "a smoothly shaded {c} background"), "gradient", article=True),
}
PREPOSITIONS = ("over", "in front of", "against")


@dataclass(frozen=True)
class Action:
    """What a shape does, in words; `{o}` is the other shape of the scene."""

    phrases: tuple[str, ...]
    summary: str
    turns: bool = False  # needs a shape whose turning can be seen
    sized: bool = True  # False: the size changes, so captions leave out the size word
    sizes: tuple[str, ...] = ("small", "medium", "large")

    @property
    def needs_other(self) -> bool:
        """Whether a second shape takes part."""
        return "{o}" in self.summary


ACTIONS: dict[str, Action] = {
    "slide_right": Action(
        ("slides from left to right", "moves across to the right", "glides steadily to the right"), "slides right"
    ),
    "slide_left": Action(
        ("slides from right to left", "moves across to the left", "glides steadily to the left"), "slides left"
    ),
    "rise": Action(("floats up from the bottom", "moves upward to the top", "rises up to the top"), "rises"),
    "fall": Action(("falls down from the top", "drops down to the bottom", "falls faster and faster"), "falls"),
    "roll_right": Action(
        ("rolls from left to right", "rolls along to the right", "tumbles over and over to the right"),
        "rolls right",
        turns=True,
    ),
    "roll_left": Action(
        ("rolls from right to left", "rolls along to the left", "tumbles over and over to the left"),
        "rolls left",
        turns=True,
    ),
    "zigzag_right": Action(("zigzags from left to right", "moves right in a zigzag"), "zigzags right"),
    "zigzag_left": Action(("zigzags from right to left", "moves left in a zigzag"), "zigzags left"),
    "bounce": Action(("bounces up and down", "keeps bouncing on the ground", "hops up and down in place"), "bounces"),
    "spin": Action(
        ("spins around in place", "rotates around its center", "keeps turning on the spot"), "spins", turns=True
    ),
    "grow": Action(
        ("grows bigger and bigger", "gets larger and larger", "slowly expands in place"), "grows", sized=False
    ),
    "shrink": Action(
        ("becomes smaller and smaller", "slowly shrinks in place", "shrinks down to a speck"), "shrinks", sized=False
    ),
    "pulse": Action(
        ("pulses bigger and smaller", "swells and shrinks again and again"),
        "pulses",
        sized=False,
    ),
    "blink": Action(("blinks on and off", "flashes on and off", "keeps appearing and disappearing"), "blinks"),
    "fade": Action(("slowly fades away", "fades out of sight", "turns more and more transparent"), "fades"),
    "shake": Action(("shakes quickly in place", "jitters nervously in place", "trembles on the spot"), "shakes"),
    "swing": Action(
        ("swings back and forth", "sways slowly back and forth", "swings like a pendulum"),
        "swings",
        sizes=("small", "medium"),
    ),
    "loop": Action(
        ("goes round and round", "moves around in a loop", "travels along a round path"),
        "loops",
        sizes=("small", "medium"),
    ),
    "orbit": Action(
        ("orbits around {o}", "keeps going around {o}"),
        "orbits {o}",
        sizes=("small", "medium"),
    ),
    "pass": Action(("moves past {o}", "goes by {o} without stopping"), "passes {o}"),
    "approach": Action(("approaches {o} and stops", "moves up to {o} and stops"), "approaches {o}"),
    "leave": Action(("moves away from {o}", "leaves {o} behind"), "leaves {o}"),
    "chase": Action(("chases after {o}", "follows close behind {o}"), "chases {o}"),
    "push": Action(("pushes {o} along", "bumps into {o} and pushes it"), "pushes {o}"),
}
MAX_PARTNER_ACTIONS = 2  # of one story: keeps its summary within twenty words


def stands_out(shape_color: str, backdrop_color: str) -> bool:
    """Whether a shape of the first colour is plainly seen before both shades of the second."""
    shape = SHAPE_COLORS[shape_color]
    return all(
        sum((a - b) ** 2 for a, b in zip(shape, shade, strict=True)) >= 100**2
        for shade in BACKDROP_COLORS[backdrop_color]
    )
