"""What members of anybody's tar say, in values that can be kept: names, texts and JSON in; text that is UTF-8, finite
numbers and segments out.

Others name members in Latin-1, cut captions within an emoji, and write NaN where pandas knew nothing. A value that is
not of its kind is none; letters that are no letters become their escapes. Reads nothing itself.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from gex_pipeline.shard_format import Frames, Segment

_LARGEST_WHOLE = (1 << 63) - 1


def encodable(text: str) -> str:
    """The same text, with lone surrogates (bytes that were not UTF-8, half an emoji) as their escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def read_json(content: bytes) -> Any:
    """The value of a JSON member.

    Raises:
        ValueError: it is no JSON, or nested too deeply to be read.
    """
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def text_of(facts: dict[str, Any], *names: str) -> str:
    """The first of these members that says something, as text; else the empty text."""
    return encodable(str(next((facts[name] for name in names if facts.get(name)), "")))


def texts_of(value: Any) -> list[str]:
    """The items of a list as texts; of anything else none."""
    return [encodable(str(item)) for item in value] if isinstance(value, list) else []


def number_of(facts: dict[str, Any], *names: str) -> float | None:
    """The first of these members that is a finite number."""
    found = [facts[name] for name in names if is_number(facts.get(name))]
    return float(found[0]) if found else None


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number that a float holds; NaN and infinity are none."""
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def whole_of(value: float | None) -> int | None:
    """A number as the nearest whole one; none where a column of whole numbers could not hold it."""
    return round(value) if value is not None and abs(value) < _LARGEST_WHOLE else None


def scores_of(value: Any) -> dict[str, float]:
    """The finite numbers of an object, by name."""
    pairs = value.items() if isinstance(value, dict) else ()
    return {encodable(name): float(score) for name, score in pairs if is_number(score)}


def segments_of(value: Any) -> list[dict[str, Any]]:
    """Segments as our shards have them; what is anything else is left out."""
    found = value if isinstance(value, list) else ()
    return [segment for item in found if (segment := _segment(item)) is not None]


def _segment(item: Any) -> dict[str, Any] | None:
    if not isinstance(item, dict) or set(item) != set(Segment.__dataclass_fields__):
        return None
    times = {name: item[name] for name in ("offset_s", "duration_s", "start_s", "end_s")}
    if not all(map(is_number, times.values())):
        return None
    texts = {name: None if item[name] is None else encodable(str(item[name])) for name in item if name not in times}
    return texts | {name: float(time) for name, time in times.items()}


def frames_of(item: Any) -> dict[str, int] | None:
    """What our shards say of their frames; anything else is nothing."""
    if not isinstance(item, dict) or set(item) != set(Frames.__dataclass_fields__):
        return None
    is_whole = all(type(value) is int and abs(value) <= _LARGEST_WHOLE for value in item.values())
    return item if is_whole else None
