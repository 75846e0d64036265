"""The validation of an output on its report: ``validation.json`` in, what the page shows of it out.

Posters of the worst samples are taken from their shards; nothing is computed anew.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from gex_pipeline.layout import Layout
from gex_pipeline.report import paper
from gex_pipeline.report.samples import poster_uri, rows_of
from gex_pipeline.report.svg import Svg
from gex_pipeline.tables import Database

_PLANE_PX = (680, 480)
_MARGIN_PX = 16
LONG_VIDEO = "long video"
_COLOURS = {"video": "g1", "long_text": "g3", "short_text": "g5"}
_PAIRS = {
    "clip_video_text": "video and text",
    "clip_image_text": "picture and text",
    "clip_text_summary": "text and its summary",
}


def read_validation(output_uri: str) -> dict[str, Any] | None:
    """What the last validation found; None where there was none.

    Raises:
        GexError: the file is damaged.
    """
    uri = Layout(output_uri).report("validation.json")
    if not storage.exists(uri):
        return None
    try:
        content: dict[str, Any] = json.loads(storage.read_bytes(uri))
    except ValueError as error:
        raise GexError(f"{uri} is damaged ({error}); delete it, or run gex validate again") from error
    return content


def validation_section(database: Database, output_uri: str) -> dict[str, Any] | None:
    """What the template shows: the content of ``validation.json`` with words, a chart and posters."""
    content = read_validation(output_uri)
    if content is None:
        return None
    keys = sorted({sample["key"] for item in content["worst"] for sample in item["samples"]})
    posters = {key: poster_uri(output_uri, row) for key, row in rows_of(database, keys).items()}
    plane = content["plane"]
    return content | {
        "pairs": [
            item | {"pair": pair_words(item["score"]), "num_texts": num_texts(item)} for item in content["pairs"]
        ],
        "chart": plane_chart(plane["points"]) if plane else None,
        "kinds": [(kind, words, _COLOURS[kind]) for kind, words in _kinds(plane).items()] if plane else [],
        "is_long": plane is not None and _media_of(plane) == LONG_VIDEO,
        "posters": {key: uri for key, uri in posters.items() if uri},
        "alarms": [row for row in content["drift"] if row["is_alarm"]],
    }


def _media_of(plane: dict[str, Any]) -> str:
    """What the videos of the picture are; a validation of an earlier version called all of them long."""
    return str(plane.get("media", LONG_VIDEO))


def _kinds(plane: dict[str, Any]) -> dict[str, str]:
    """What each kind of point is, in words."""
    media = _media_of(plane)
    words = {"video": media, "long_text": "long text" if media == LONG_VIDEO else "text", "short_text": "short text"}
    return {kind: words[kind] for kind in plane["points"]}


def pair_words(score: str) -> str:
    """What a CLIP cosine compares."""
    known = paper.SCORES.get(score)
    return known.pair if known else _PAIRS.get(score, score)


def num_texts(item: dict[str, Any]) -> int:
    """How many texts CLIP read for these cosines: a sample's own, or its long and its short one."""
    return int(item["num"]) * (2 if item["score"] in ("clip_text_cosine", "clip_text_summary") else 1)


def plane_chart(points: dict[str, Sequence[Sequence[float]]]) -> Markup:
    """Features in the plane: videos as squares, long texts as discs, their short texts as rings joined to them."""
    width_px, height_px = _PLANE_PX
    svg = Svg(width_px, height_px, "t-SNE of video, long-text and short-text features")
    places = {kind: [_place(point) for point in rows] for kind, rows in points.items()}
    for start, end in zip(places.get("long_text", ()), places.get("short_text", ()), strict=True):
        svg.add("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_="pair")
    for x, y in places.get("video", ()):
        svg.add("rect", x=x - 4, y=y - 4, width=8, height=8, class_=f"{_COLOURS['video']} point")
    for x, y in places.get("long_text", ()):
        svg.add("circle", cx=x, cy=y, r=4.5, class_=f"{_COLOURS['long_text']} point")
    for x, y in places.get("short_text", ()):
        svg.add("circle", cx=x, cy=y, r=4, class_=f"{_COLOURS['short_text']} ring")
    return svg.markup()


def _place(point: Sequence[float]) -> tuple[float, float]:
    width_px, height_px = _PLANE_PX
    return (
        _MARGIN_PX + point[0] * (width_px - 2 * _MARGIN_PX),
        height_px - _MARGIN_PX - point[1] * (height_px - 2 * _MARGIN_PX),
    )
