"""The contact sheet: samples of the longest granularity as rows of frames, as one PNG.

A row shows a sample's summary (where one is published), frames at the middle of its segments, the joints between
them, and each segment's caption. Drawn with Pillow on one layout; the same output gives the same picture.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gex_pipeline.errors import Reason, RejectedError
from gex_pipeline.report.figures import Figures
from gex_pipeline.report.lettering import draw_lines, line_height_px, plain_font, readable, wrapped
from gex_pipeline.report.pictures import open_picture
from gex_pipeline.report.samples import fetched
from gex_pipeline.report.wording import position
from gex_pipeline.shard_format import FRAMES_EXTENSION, IMAGE_EXTENSIONS, DamagedRunError, split_run
from gex_pipeline.tables import Database

if TYPE_CHECKING:
    from PIL import Image

_NUM_ROWS = 6
_NUM_FRAMES = 6
_FRAME_PX = (248, 150)
_GAP_PX = 14
_MARGIN_PX = 36
_CAPTION_LINES = 5
_TEXT_PX = 13
_MAX_MEDIA_BYTES = 200_000_000  # a larger video is not fetched for six frames where there is a smaller one
_Colour = tuple[int, int, int]
_PAPER: _Colour = (251, 250, 248)
_INK: _Colour = (29, 31, 36)
_SOFT: _Colour = (82, 88, 99)
_LINE: _Colour = (222, 218, 211)
_JOINT: _Colour = (163, 90, 8)
_BAND: tuple[_Colour, _Colour] = ((122, 164, 232), (36, 102, 216))


@dataclass(frozen=True)
class _Frame:
    """One picture of a row: its time in the video and the segment it shows (by number)."""

    time_s: float
    segment: int
    picture: Image.Image


@dataclass(frozen=True)
class _Row:
    """One sample of the sheet."""

    sample: dict[str, Any]
    summary: str | None
    scores: dict[str, float]
    frames: tuple[_Frame, ...]


def contact_sheet(database: Database, figures: Figures, output_uri: str) -> bytes | None:
    """The PNG's bytes, or None where no granularity has videos that can be shown."""
    name = _longest(figures)
    if name is None:
        return None
    candidates = database.rows("report_sample_keys", num=4 * _NUM_ROWS, max_bytes=_MAX_MEDIA_BYTES)
    keys = [row["key"] for row in candidates if row["granularity"] == name]
    samples = {row["key"]: row for row in database.rows("report_sample_rows", keys=keys)}
    summaries = {row["parent_id"]: row for row in database.rows("report_summaries_of", keys=keys)}
    title = f"{figures.name} · {name}"
    return sheet_of([samples[key] for key in keys], summaries, partial(fetched, output_uri), title)


def sheet_of(
    samples: Sequence[dict[str, Any]],
    summaries: Mapping[str, dict[str, Any]],
    fetch: Callable[[dict[str, Any], Path], Path],
    title: str,
    num_rows: int = _NUM_ROWS,
) -> bytes | None:
    """A sheet of the first samples that can be shown, as PNG bytes; None where there is none.

    `fetch` writes a sample's media into a folder; `summaries` go above the samples with these keys.
    """
    rows: list[_Row] = []
    for sample in samples:
        if len(rows) == num_rows:
            break
        row = _load(sample, summaries.get(sample["key"]), fetch)
        if row is not None:
            rows.append(row)
    return _png(_draw(rows, title)) if rows else None


def _longest(figures: Figures) -> str | None:
    """The video granularity with the longest samples; a summarised one only where there is no other."""
    videos = [node for node in figures.nodes if node.media == "video" and node.mean_duration_s]
    own = [node for node in videos if not {"embed", "reference"} & set(node.made_by)] or videos
    return max(own, key=lambda node: node.mean_duration_s or 0.0).name if own else None


def _load(
    sample: dict[str, Any], summary: dict[str, Any] | None, fetch: Callable[[dict[str, Any], Path], Path]
) -> _Row | None:
    """Take the frames of one sample; None where its video or picture cannot be shown."""
    is_picture = sample["media_extension"] in IMAGE_EXTENSIONS
    if sample["source_text_digest"] is not None:  # it is a summary itself
        summary = {"text": sample["text"], "scores": sample["scores"]}
    frames = []
    with tempfile.TemporaryDirectory(prefix="gex-report-") as folder:
        path = fetch(sample, Path(folder))
        try:
            shown_at = _shown_at(sample, path)
            for segment, time_s in [(0, 0.0)] if is_picture else _moments(sample):
                picture = shown_at(time_s)
                picture.thumbnail(_FRAME_PX)
                frames.append(_Frame(time_s, segment, picture))
        except (RejectedError, DamagedRunError):
            return None
    scores = json.loads(sample.get("scores") or "{}")
    text = None
    if summary:
        text, scores = summary["text"], scores | json.loads(summary["scores"] or "{}")
    return _Row(sample, text, scores, tuple(frames))


def _shown_at(sample: dict[str, Any], path: Path) -> Callable[[float], Image.Image]:
    """What of a sample's media is shown at a time: of frames the one whose span holds it."""
    from PIL import Image

    from gex_pipeline.media.frames import frame_at
    from gex_pipeline.media.sampling import decode_jpeg

    if sample["media_extension"] in IMAGE_EXTENSIONS:
        return lambda _: open_picture(path.read_bytes())
    if sample["media_extension"] != FRAMES_EXTENSION:
        return lambda time_s: Image.fromarray(frame_at(path, time_s))
    jpegs = split_run(path.read_bytes())
    if not jpegs:
        raise RejectedError(Reason.no_frames, "there are no frames in it")
    scale = len(jpegs) / sample["duration_s"]
    return lambda time_s: Image.fromarray(decode_jpeg(jpegs[min(int(time_s * scale), len(jpegs) - 1)]))


def _moments(sample: dict[str, Any]) -> list[tuple[int, float]]:
    """(segment, time) of the frames: segments spread evenly, each at its middle; a lone segment several times."""
    segments = sample["segments"]
    if len(segments) < 2:
        span_s = sample["duration_s"] / _NUM_FRAMES
        return [(0, span_s * (number + 0.5)) for number in range(_NUM_FRAMES)]
    num = min(len(segments), _NUM_FRAMES)
    chosen = [round(number * (len(segments) - 1) / (num - 1)) for number in range(num)]
    return [(index, segments[index]["offset_s"] + segments[index]["duration_s"] / 2) for index in chosen]


def _draw(rows: list[_Row], title: str) -> Image.Image:
    """All rows below each other: measured first on a scratch picture, then drawn."""
    from PIL import Image

    width_px = 2 * _MARGIN_PX + _NUM_FRAMES * _FRAME_PX[0] + (_NUM_FRAMES - 1) * _GAP_PX
    scratch = Image.new("RGB", (width_px, 1400), _PAPER)
    height_px = _draw_title(scratch, title)
    for row in rows:
        height_px += _draw_row(scratch, row, 0) + 34
    sheet = Image.new("RGB", (width_px, round(height_px)), _PAPER)
    y = _draw_title(sheet, title)
    for row in rows:
        y += _draw_row(sheet, row, y) + 34
    return sheet


def _draw_title(sheet: Image.Image, title: str) -> float:
    from PIL import ImageDraw

    text, font = readable(title, 26)
    lines = wrapped(text, font, sheet.width - 2 * _MARGIN_PX, 1)
    return draw_lines(ImageDraw.Draw(sheet), (_MARGIN_PX, _MARGIN_PX - 6), lines, font, _INK) + 14


def _draw_row(sheet: Image.Image, row: _Row, top_px: float) -> float:
    """Draw one sample; returns its height."""
    from PIL import ImageDraw

    draw = ImageDraw.Draw(sheet)
    width_px = sheet.width - 2 * _MARGIN_PX
    draw.line((_MARGIN_PX, top_px, _MARGIN_PX + width_px, top_px), fill=_LINE)
    times_y = _draw_heading(draw, row, top_px + 16, width_px)
    font = plain_font(_TEXT_PX)
    y = times_y + line_height_px(font) + 2
    bottoms = []
    for number, frame in enumerate(row.frames):
        x = _MARGIN_PX + number * (_FRAME_PX[0] + _GAP_PX)
        if number and frame.segment != row.frames[number - 1].segment:
            _draw_joint(draw, x - _GAP_PX / 2, y, frame.segment - row.frames[number - 1].segment - 1)
        draw.text((x, times_y), position(frame.time_s), font=font.face, fill=_JOINT)
        picture = frame.picture
        sheet.paste(picture, (x + (_FRAME_PX[0] - picture.width) // 2, round(y) + (_FRAME_PX[1] - picture.height) // 2))
        bottoms.append(_draw_caption(draw, (x, y + _FRAME_PX[1] + 8), row, number))
    if row.sample["duration_s"]:
        _draw_band(draw, row, max(bottoms) + 8, width_px)
    return max(bottoms) + 8 + 10 - top_px


def _draw_heading(draw: Any, row: _Row, top_px: float, width_px: float) -> float:
    """The sample's source, length and scores, and above all its summary."""
    y = top_px
    if row.summary:
        text, font = readable(row.summary, 20)
        y = draw_lines(draw, (_MARGIN_PX, y), wrapped(text, font, width_px, 3), font, _INK) + 2
    facts = [row.sample["source_id"], position(row.sample["duration_s"]), f"{len(row.sample['segments'])} segments"]
    facts += [f"{name} {value:.3f}" for name, value in list(row.scores.items())[:5]]
    text, font = readable(" · ".join(facts), _TEXT_PX)
    return draw_lines(draw, (_MARGIN_PX, y), wrapped(text, font, width_px, 1), font, _SOFT) + 10


def _draw_joint(draw: Any, x: float, top_px: float, num_skipped: int) -> None:
    """A mark between two frames where one clip ends and another begins; with the clips that are not shown."""
    bottom_px = top_px + _FRAME_PX[1]
    draw.line((x, top_px, x, bottom_px), fill=_JOINT, width=3)
    for y, way in ((top_px, 1), (bottom_px, -1)):
        draw.polygon([(x - 5, y - way * 5), (x + 5, y - way * 5), (x, y + way * 2)], fill=_JOINT)
    if num_skipped:
        font = plain_font(11)
        label = f"+{num_skipped}"
        half_px = font.face.getlength(label) / 2 + 4
        middle_px = (top_px + bottom_px) / 2
        draw.rounded_rectangle((x - half_px, middle_px - 9, x + half_px, middle_px + 9), 6, fill=_JOINT)
        draw.text((x, middle_px), label, font=font.face, fill=_PAPER, anchor="mm")


def _draw_caption(draw: Any, place: tuple[float, float], row: _Row, number: int) -> float:
    """The caption of a frame's segment, once a segment; returns where it ends."""
    frame = row.frames[number]
    x, y = place
    segments = row.sample["segments"]
    if not segments or (number and row.frames[number - 1].segment == frame.segment):
        return y
    text, font = readable(segments[frame.segment]["text"], _TEXT_PX)
    room_px = _FRAME_PX[0] if len(segments) > 1 else _NUM_FRAMES * (_FRAME_PX[0] + _GAP_PX) - _GAP_PX
    return draw_lines(draw, (x, y), wrapped(text, font, room_px, _CAPTION_LINES), font, _INK)


def _draw_band(draw: Any, row: _Row, y: float, width_px: float) -> None:
    """The whole video as a band, a piece a segment, with a tick at every frame shown."""
    scale = width_px / max(row.sample["duration_s"], 1e-6)
    for number, segment in enumerate(row.sample["segments"]):
        left = _MARGIN_PX + segment["offset_s"] * scale
        right = min(left + segment["duration_s"] * scale, _MARGIN_PX + width_px)
        draw.rectangle((left, y, max(right - 1, left), y + 6), fill=_BAND[number % 2])
    for frame in row.frames:
        x = _MARGIN_PX + frame.time_s * scale
        draw.polygon([(x - 4, y - 5), (x + 4, y - 5), (x, y + 1)], fill=_JOINT)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
