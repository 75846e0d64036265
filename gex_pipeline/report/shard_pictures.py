"""Pictures for ``gex shards``: a contact sheet of chosen samples and histograms, as PNG bytes."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any

from gex_pipeline.errors import GexError, RejectedError
from gex_pipeline.report.lettering import plain_font, readable
from gex_pipeline.report.sheet import sheet_of
from gex_pipeline.report.wording import number
from gex_pipeline.shard_format import FRAMES_EXTENSION, IMAGE_EXTENSIONS
from gex_pipeline.shards.samples import Samples

_PANEL_PX = (460, 150)
_MARGIN_PX = 36
_TITLE_PX = 40
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
                _draw_panel(draw, (left, top), f"{name or 'samples'} · {histogram['quantity']}", histogram, name)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _draw_panel(draw: Any, place: tuple[int, int], title: str, histogram: dict[str, Any], name: str) -> None:
    """Bars on the axis that all granularities share, the ends of the axis beneath."""
    left, top = place
    counts, edges = histogram["counts"][name], histogram["edges"]
    text, font = readable(f"{title}   n = {sum(counts)}", 15)
    draw.text((left, top), text, font=font.face, fill=_INK)
    base, scale = top + 24 + _PANEL_PX[1], _PANEL_PX[0] / (edges[-1] - edges[0])
    for count, low, high in zip(counts, edges, edges[1:], strict=False):
        x, end = left + (low - edges[0]) * scale, left + (high - edges[0]) * scale - 1
        if count:
            draw.rectangle((x, base - _PANEL_PX[1] * count / max(counts), max(x, end), base), fill=_BAR)
    draw.line((left, base, left + _PANEL_PX[0], base), fill=_SOFT)
    small = plain_font(12).face
    draw.text((left, base + 4), _plain(edges[0]), font=small, fill=_SOFT)
    draw.text((left + _PANEL_PX[0], base + 4), _plain(edges[-1]), font=small, fill=_SOFT, anchor="ra")


def _plain(value: float) -> str:
    """A number in the letters that the built-in font has."""
    return number(value).replace("\u202f", " ").replace("\u2212", "-")
