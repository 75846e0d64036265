"""Pictures for ``gex shards``: a contact sheet of chosen samples and histograms, as PNG bytes."""

from __future__ import annotations

import io
import json
import math
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from gex_pipeline.errors import GexError, RejectedError
from gex_pipeline.report.lettering import plain_font, readable, wrapped
from gex_pipeline.report.sheet import sheet_of
from gex_pipeline.report.wording import exact, number
from gex_pipeline.shard_format import FRAMES_EXTENSION, IMAGE_EXTENSIONS
from gex_pipeline.shards.samples import Samples

_PANEL_PX = (460, 150)
_MARGIN_PX = 36
_TITLE_PX = 40
_LONE_PX = 22  # the bar of a value that all samples share
_INK, _SOFT, _PAPER, _BAR = (29, 31, 36), (82, 88, 99), (251, 250, 248), (36, 102, 216)


def samples_sheet(samples: Samples, rows: list[dict[str, Any]], title: str) -> bytes | None:
    """The contact sheet of these samples; None where not one of them can be shown."""
    keys = [row["key"] for row in rows]
    own = {
        row["key"]: {"text": row["text"], "scores": json.dumps(row["scores"])} for row in rows if not row["segments"]
    }
    above = {row["parent_id"]: row for row in samples.database.rows("report_summaries_of", keys=keys)}
    shown = [found for row in rows if (found := _shown(samples, row)) is not None]
    return sheet_of(shown, above | own, samples.fetch, title, len(shown))


def _shown(samples: Samples, row: dict[str, Any]) -> dict[str, Any] | None:
    """A row as the sheet takes it, a video's length measured where nobody says it; None without media."""
    if row["media_uri"] is None:
        return None
    row = row | {"scores": json.dumps(row["scores"]), "source_id": row["source_id"] or row["key"]}
    row["segments"] = row["segments"] or []
    if row["media_extension"] in IMAGE_EXTENSIONS:
        return row | {"duration_s": 0.0}
    if not row["duration_s"]:
        if row["media_extension"] == FRAMES_EXTENSION:
            return None  # nobody says which times its frames are of
        try:
            row["duration_s"] = _measured_s(samples, row)
        except (RejectedError, GexError):
            return None
    return row


def _measured_s(samples: Samples, row: dict[str, Any]) -> float:
    from gex_pipeline.media.probe import probe_video
    from gex_pipeline.media.settings import VideoSettings

    with tempfile.TemporaryDirectory(prefix="gex-sheet-") as folder:
        return probe_video(samples.fetch(row, Path(folder)), VideoSettings()).duration_s


def histograms_picture(content: dict[str, Any]) -> bytes:
    """The histograms of `gex_pipeline.shards.looking.statistics`: a row a quantity, a column a granularity."""
    from PIL import Image, ImageDraw

    histograms = content["histograms"]
    names = list(dict.fromkeys(name for histogram in histograms for name in histogram["counts"]))
    width_px = _MARGIN_PX + len(names) * (_PANEL_PX[0] + _MARGIN_PX)
    height_px = _MARGIN_PX + len(histograms) * (_PANEL_PX[1] + _TITLE_PX + _MARGIN_PX)
    picture = Image.new("RGB", (max(width_px, 2 * _MARGIN_PX), height_px), _PAPER)
    draw = ImageDraw.Draw(picture)
    for line, histogram in enumerate(histograms):
        for column, name in enumerate(names):
            left = _MARGIN_PX + column * (_PANEL_PX[0] + _MARGIN_PX)
            top = _MARGIN_PX + line * (_PANEL_PX[1] + _TITLE_PX + _MARGIN_PX)
            if name in histogram["counts"]:
                _draw_panel(draw, (left, top), histogram, name)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _draw_panel(draw: Any, place: tuple[int, int], histogram: dict[str, Any], name: str) -> None:
    """Bars on the axis that all granularities share, the ends of the axis beneath."""
    left, top = place
    counts, edges = histogram["counts"][name], histogram["edges"]
    width_px, height_px = _PANEL_PX
    small = plain_font(12).face
    figures = f"n = {sum(counts)}, highest bar {max(counts)}"
    draw.text((left + width_px, top + 3), figures, font=small, fill=_SOFT, anchor="ra")
    text, font = readable(f"{histogram['quantity']} · {name or 'samples'}", 15)
    (title,) = wrapped(text, font, width_px - small.getlength(figures) - 12, 1)
    draw.text((left, top), title, font=font.face, fill=_INK)
    base = top + 24 + height_px
    for count, (start, end) in zip(counts, _places(edges), strict=True):
        if count:
            x = left + start * width_px
            draw.rectangle(
                (x, base - height_px * count / max(counts), max(x, left + end * width_px - 2), base), fill=_BAR
            )
    draw.line((left, base, left + width_px, base), fill=_SOFT)
    for share, anchor, label in _ends(edges, is_whole=histogram["quantity"] == "num_words"):
        draw.text((left + share * width_px, base + 4), label, font=small, fill=_SOFT, anchor=anchor)


def _places(edges: list[float]) -> list[tuple[float, float]]:
    """Where every bin begins and ends, as shares of the axis; a lone one is narrow and stands in the middle."""
    if len(edges) == 2:
        half = _LONE_PX / _PANEL_PX[0] / 2
        return [(0.5 - half, 0.5 + half)]
    span = edges[-1] - edges[0]
    return [((low - edges[0]) / span, (high - edges[0]) / span) for low, high in pairwise(edges)]


def _ends(edges: list[float], *, is_whole: bool) -> list[tuple[float, str, str]]:
    """The labels beneath an axis: where each stands as a share of the axis, its anchor, its words.

    They differ wherever the ends do. The last bin of whole values ends with one that it does not hold.
    """
    if len(edges) == 2:
        return [(0.5, "ma", _plain(number(edges[0])))]
    low, high = edges[0], edges[-1] - is_whole
    decimals = 0 if is_whole else max(0, 2 - math.floor(math.log10(high - low)))
    return [(share, anchor, _plain(exact(end, decimals))) for share, anchor, end in ((0, "la", low), (1, "ra", high))]


def _plain(text: str) -> str:
    """A number in the letters that the built-in font has."""
    return text.replace("\u202f", " ").replace("\u2212", "-")
