"""Search: a text in; the videos of a granularity nearest to it out, as a list and as a contact sheet.

Vectors come in blocks, from a file of `gex embed` or from the model while it reads the data set; only the best matches
so far are kept. Equal scores are ordered by the samples' order in the data set.
"""

# Arrays: B rows of a block, D embedding, T frames, H and W pixels.

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from gex_pipeline.progress import progress
from gex_pipeline.report.lettering import draw_lines, line_height_px, plain_font, readable, wrapped
from trainer.catalog import Catalog
from trainer.catalog_rows import CatalogSample
from trainer.embed import Counted, batches_of, reading_of
from trainer.frames import IMAGE_EXTENSIONS, read_frames
from trainer.media_reader import DamagedMediaError, MediaReader
from trainer.pretrained import Pretrained
from trainer.vectors import Block, Floats, VectorFile
from trainer.videos import Frames

_NUM_FRAMES = 4
_FRAME_PX = 176
_GAP_PX = 8
_MARGIN_PX = 32
_RANK_PX = 92
_TEXT_PX = 420
_PAPER, _INK, _SOFT, _LINE = (251, 250, 248), (29, 31, 36), (93, 99, 111), (222, 218, 211)


@dataclass(frozen=True)
class Match:
    """One sample, by its number in its granularity."""

    score: float
    number: int
    key: str


def top_matches(blocks: Iterable[Block], query_D: Floats, num: int) -> list[Match]:
    """The `num` samples with the highest cosine, best first.

    Raises:
        ValueError: `num` is not positive.
    """
    if num < 1:
        raise ValueError(f"num is {num}; expected at least 1")
    best: list[Match] = []
    for block in blocks:
        scores_B: NDArray[np.float32] = block.video_BD @ query_D
        for row in _highest(scores_B, num):
            best.append(Match(float(scores_B[row]), int(block.numbers[row]), block.keys[row]))
        best = sorted(best, key=lambda match: (-match.score, match.number))[:num]
    return best


def _highest(scores_B: NDArray[np.float32], num: int) -> NDArray[np.int64]:
    """Rows of the highest scores, with all that equal the lowest of them."""
    if num >= len(scores_B):
        return np.arange(len(scores_B))
    bound = np.partition(scores_B, len(scores_B) - num)[len(scores_B) - num]
    return np.flatnonzero(scores_B >= bound)


def encoded_blocks(
    model: Pretrained, catalog: Catalog, granularity: str, counted: Counted, num_workers: int = 0
) -> Iterator[Block]:
    """The videos of a granularity, encoded as they are read; `counted` tells at the end what could not be."""
    n_iter = reading_of(model, granularity).n_iter_video
    for batch in batches_of(model, catalog, granularity, num_workers, needs_text=False):
        counted.damaged += batch.damaged
        counted.num_rows += len(batch.keys)
        if batch.keys:
            vectors_BD = model.encode_videos(batch.frames_BT3HW, n_iter).numpy()
            yield Block(np.asarray(batch.numbers, dtype=np.int64), batch.keys, vectors_BD)


def stored_blocks(file: VectorFile, granularity: str, counted: Counted) -> Iterator[Block]:
    """The videos of a granularity in a file of vectors."""
    progress().stage(f"search {granularity}", None, "samples")
    for block in file.blocks(granularity):
        counted.num_rows += len(block.keys)
        yield block
        progress().advance(len(block.keys))


@dataclass(frozen=True)
class Shown:
    """One match as a row of the sheet: its sample, and its pictures (T, 3, H, W) or why there are none."""

    match: Match
    sample: CatalogSample
    frames: Frames | None
    damage: str = ""


def frames_of(matches: Sequence[tuple[Match, CatalogSample]]) -> list[Shown]:
    """The matches with a few frames each."""
    media, found = MediaReader(), []
    try:
        for match, sample in matches:
            num_frames = 1 if sample.media_extension in IMAGE_EXTENSIONS else _NUM_FRAMES
            try:
                found.append(Shown(match, sample, read_frames(sample, num_frames, _FRAME_PX, media)))
            except DamagedMediaError as error:
                found.append(Shown(match, sample, None, str(error)))
    finally:
        media.close()
    return found


def sheet(query: str, facts: str, rows: Sequence[Shown]) -> Image.Image:
    """The matches below each other: rank and score, frames, text; above them the query, and `facts` in small."""
    width_px = 2 * _MARGIN_PX + _RANK_PX + _NUM_FRAMES * (_FRAME_PX + _GAP_PX) + 8 + _TEXT_PX
    room_px = width_px - 2 * _MARGIN_PX
    title, title_font = readable(query, 22)
    title_lines = wrapped(title, title_font, room_px, 3)
    small, small_font = readable(facts, 13)
    small_lines = wrapped(small, small_font, room_px, 2)
    head_px = _MARGIN_PX + len(title_lines) * line_height_px(title_font) + 4
    top_px = head_px + len(small_lines) * line_height_px(small_font) + 14
    row_px = _FRAME_PX + 28
    picture = Image.new("RGB", (width_px, top_px + len(rows) * row_px + _MARGIN_PX // 2), _PAPER)
    draw = ImageDraw.Draw(picture)
    draw_lines(draw, (_MARGIN_PX, _MARGIN_PX), title_lines, title_font, _INK)
    draw_lines(draw, (_MARGIN_PX, head_px), small_lines, small_font, _SOFT)
    for rank, row in enumerate(rows):
        _draw_row(picture, draw, row, (rank + 1, top_px + rank * row_px))
    return picture


def _draw_row(picture: Image.Image, draw: Any, row: Shown, place: tuple[int, int]) -> None:
    rank, top_px = place
    draw.line((_MARGIN_PX, top_px, picture.width - _MARGIN_PX, top_px), fill=_LINE)
    y, x = top_px + 14, _MARGIN_PX
    draw.text((x, y), f"{rank}", font=plain_font(22).face, fill=_INK)
    draw.text((x, y + 32), f"{row.match.score:.4f}", font=plain_font(17).face, fill=_INK)
    x += _RANK_PX
    for frame_3HW in row.frames if row.frames is not None else ():
        picture.paste(Image.fromarray(np.ascontiguousarray(frame_3HW.transpose(1, 2, 0))), (x, y))
        x += _FRAME_PX + _GAP_PX
    if row.frames is None:
        text, font = readable(f"cannot be shown: {row.damage}", 13)
        lines = wrapped(text, font, _NUM_FRAMES * (_FRAME_PX + _GAP_PX) - _GAP_PX, 4)
        draw_lines(draw, (x, y), lines, font, _SOFT)
    x = _MARGIN_PX + _RANK_PX + _NUM_FRAMES * (_FRAME_PX + _GAP_PX) + 8
    text, font = readable(row.sample.text, 15)
    y_text = draw_lines(draw, (x, y), wrapped(text, font, _TEXT_PX, 6), font, _INK)
    facts, facts_font = readable(f"{row.sample.source_id} · {row.match.key}", 12)
    draw_lines(draw, (x, y_text + 5), wrapped(facts, facts_font, _TEXT_PX, 2), facts_font, _SOFT)
