"""Caption groups as a captioning model writes them, and requests made of them."""

from __future__ import annotations

from gex_pipeline.shard_format import text_digest
from gex_pipeline.summarize.request import SummaryRequest

BREAKFAST = (
    "a woman is cutting onions on a wooden cutting board",
    "a woman puts chopped onions into a frying pan with oil",
    "a person stirring vegetables in a pan with a wooden spoon",
    "a woman pours tomato sauce over the vegetables in the pan",
    "a plate of pasta with red sauce is shown on a table",
)
RIDE = (
    "a man in a blue jacket is standing next to a motorcycle",
    "a man is riding a motorcycle down a winding mountain road",
    "a person riding a motorcycle on a road in the mountains",
    "the motorcycle is parked in front of a small roadside cafe",
)
FISHING = (
    "a man is holding a fishing rod on a small boat",
    "a man is fishing on a boat in the middle of a lake",
    "a man reels in a large fish from the water",
    "a man releases the fish back into the water",
)
PETS = (
    "a puppy is sleeping on a couch next to a cat",
    "a cat is playing with a toy mouse on the floor",
    "a small brown dog is chasing a cat around the living room",
    "a dog and a cat are eating food from two bowls",
)
STORIES = (BREAKFAST, RIDE, FISHING, PETS)


def request(captions: tuple[str, ...] = RIDE, key: str = "k0", attempt: int = 0) -> SummaryRequest:
    text = " ".join(f"{caption}." for caption in captions)
    return SummaryRequest(key=key, source_digest=text_digest(text), captions=captions, text=text, attempt=attempt)


def many(count: int) -> list[SummaryRequest]:
    """Requests with different texts and keys."""
    return [request((*STORIES[i % 4], f"a man shows card number {i} to a child"), key=f"k{i}") for i in range(count)]
