"""Hand-written caption groups of different videos, each with a good summary: (captions in time order, summary)."""

from __future__ import annotations

GROUPS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        (
            "a potter throws a lump of clay on a spinning wheel",
            "two wet hands pull the clay up into a tall vase",
            "a potter cuts the vase off the wheel with a wire",
            "several clay vases stand in a kiln",
        ),
        "a potter shapes a clay vase on a wheel and fires it in a kiln",
    ),
    (
        (
            "a rower carries an oar down to a jetty",
            "four people in a racing boat row along a canal",
            "a coach on a bicycle shouts through a megaphone",
            "the crew lift the boat out of the water",
            "the rowers stretch on the grass",
        ),
        "a crew row a racing boat along a canal while their coach shouts, then lift it out",
    ),
    (
        (
            "a baker weighs flour and salt",
            "dough is kneaded on a floured table",
            "loaves of bread are pushed into a stone oven",
            "a baker taps the crust of a loaf",
        ),
        "a baker kneads dough and bakes loaves of bread in a stone oven",
    ),
    (
        (
            "a penguin slides on its belly over the ice",
            "a colony of penguins huddle in a snow storm",
            "a penguin chick is fed by its parent",
            "penguins dive into the sea through a hole in the ice",
            "a seal lies on an ice floe",
            "a penguin leaps out of the water",
        ),
        "penguins huddle in the snow, feed a chick and dive into the icy sea",
    ),
    (
        (
            "a mechanic loosens the spokes of a bicycle wheel",
            "a bent rim is put into a truing stand",
            "a mechanic pumps air into a tyre",
            "a repaired bicycle is ridden around the yard",
        ),
        "a mechanic straightens a bicycle wheel and pumps up its tyre",
    ),
)

SUMMARIES = [summary for _, summary in GROUPS]
LONG_TEXTS = [". ".join(captions) + "." for captions, _ in GROUPS]
FOREIGN_TEXTS = [*LONG_TEXTS[1:], LONG_TEXTS[0]]

# one word to well over any model's length, so that every batch is padded and some texts are cut
MIXED_LENGTHS = [
    ("penguins", LONG_TEXTS[3]),
    (SUMMARIES[0], LONG_TEXTS[0] * 12),
    (SUMMARIES[1], "a boat"),
    ("", LONG_TEXTS[2]),
    (SUMMARIES[2], LONG_TEXTS[2]),
    (LONG_TEXTS[3], LONG_TEXTS[4]),
    (" \t\n", "\u200b"),
    (SUMMARIES[4], LONG_TEXTS[4] + " " + LONG_TEXTS[0]),
    ("bread", "bread"),
]
