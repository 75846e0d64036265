"""The samples a report shows: receipts in, chosen samples with their media as data URIs out.

The choice is deterministic: granularities in turn, within one the sources in turn, by key; small media first.
Media that is too big, or that no browser plays, is shown as a strip of its frames. Changes nothing in the output.
"""

from __future__ import annotations

import base64
import io
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gex_pipeline import storage
from gex_pipeline.errors import RejectedError
from gex_pipeline.report.figures import Figures, view_table
from gex_pipeline.report.pictures import open_picture
from gex_pipeline.shard_format import FRAMES_EXTENSION, DamagedRunError
from gex_pipeline.shards.manifest import Manifest
from gex_pipeline.tables import Database

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MEDIA_BYTES = 6_000_000  # all media of a page together; base64 makes a third more of it
_IMAGE_TYPES = {"jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
_VIDEO_TYPES = {"mp4": "video/mp4", "webm": "video/webm"}
_PLAYED_CODECS = ("h264", "vp8", "vp9", "av1")
_STRIP_FRAMES = 4
_STRIP_HEIGHT_PX = 180
_POSTER_HEIGHT_PX = 240
_THUMBNAIL_PX = (240, 130)
_LARGE_PX = (640, 640)
_WIDEST_PX = 8192
_POSTER_QUALITY = 80


@dataclass(frozen=True)
class Media:
    """What the page embeds: "video", "image", "strip" (some frames of what is not embedded) or "none"."""

    kind: str
    uri: str = ""
    poster_uri: str = ""
    note: str = ""


@dataclass(frozen=True)
class Sample:
    """One sample of the page; `row` is its receipt row."""

    row: dict[str, Any]
    scores: dict[str, float]
    long_text: str | None  # of a summary: the text it was made from
    backend: str | None
    attempts: int | None
    media: Media

    @property
    def is_summary(self) -> bool:
        """Whether its text was made from a longer one."""
        return self.row["source_text_digest"] is not None


def choose_samples(
    database: Database, figures: Figures, output_uri: str, manifest: Manifest, num_samples: int
) -> tuple[Sample, ...]:
    """Choose and load the samples; `database` has the view ``receipts``.

    Raises:
        GexError: a shard that the manifest names cannot be read.
    """
    cap_bytes = _MEDIA_BYTES // max(num_samples, 1)
    names = [node.name for node in figures.nodes if node.media != "clips"]
    candidates = database.rows("report_sample_keys", num=4 * num_samples, max_bytes=cap_bytes)
    keys = _spread({name: [row for row in candidates if row["granularity"] == name] for name in names}, num_samples)
    rows = rows_of(database, keys)
    long_texts = rows_of(database, [row["parents"][0] for row in rows.values() if row["source_text_digest"]])
    makers = _makers(database, output_uri, manifest, names, list(rows))
    samples = []
    for key in keys:
        row = rows[key]
        parent = long_texts.get(row["parents"][0]) if row["source_text_digest"] else None
        maker = makers.get(key, {})
        samples.append(
            Sample(
                row=row,
                scores=json.loads(row["scores"] or "{}"),
                long_text=parent["text"] if parent else None,
                backend=maker.get("backend"),
                attempts=maker.get("attempts"),
                media=load_media(output_uri, row, cap_bytes),
            )
        )
    return tuple(samples)


def _spread(candidates: dict[str, list[dict[str, Any]]], num_samples: int) -> list[str]:
    """Keys in the order of the granularities; each granularity in turn takes a source nobody showed yet, if it can."""
    waiting = {name: list(rows) for name, rows in candidates.items()}
    chosen: dict[str, list[str]] = {name: [] for name in candidates}
    shown: set[str] = set()
    while any(waiting.values()) and sum(map(len, chosen.values())) < num_samples:
        for name, rows in waiting.items():
            if rows and sum(map(len, chosen.values())) < num_samples:
                row = next((row for row in rows if row["source_id"] not in shown), rows[0])
                rows.remove(row)
                shown.add(row["source_id"])
                chosen[name].append(row["key"])
    return [key for keys in chosen.values() for key in keys]


def rows_of(database: Database, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The receipt rows of these samples, by key."""
    return {row["key"]: row for row in database.rows("report_sample_rows", keys=list(keys))}


def _makers(
    database: Database, output_uri: str, manifest: Manifest, names: Sequence[str], keys: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Backend and attempts of the summaries among these samples."""
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        if view_table(database, output_uri, manifest, f"summaries-{name}"):
            found |= {row["key"]: row for row in database.rows("report_summary_makers", keys=list(keys))}
    return found


def fetched(output_uri: str, row: dict[str, Any], folder: Path) -> Path:
    """A sample's media as a local file, copied out of its shard."""
    target = folder / f"sample.{row['media_extension']}"
    place = storage.join(output_uri, row["media_uri"])
    storage.copy_range(place, row["media_offset_bytes"], row["media_size_bytes"], target)
    return target


def load_media(output_uri: str, row: dict[str, Any], cap_bytes: int) -> Media:
    """A sample's media as the page can show it."""
    extension = row["media_extension"]
    with tempfile.TemporaryDirectory(prefix="gex-report-") as folder:
        path = fetched(output_uri, row, Path(folder))
        if extension == FRAMES_EXTENSION:
            return _strip_of_run(path.read_bytes(), row)
        if extension in _IMAGE_TYPES:
            return _picture(path.read_bytes(), _IMAGE_TYPES[extension], cap_bytes)
        try:
            poster_uri = _jpeg_uri(_frames(path, 1, _POSTER_HEIGHT_PX))
            if extension in _VIDEO_TYPES and row["codec"] in _PLAYED_CODECS and row["media_size_bytes"] <= cap_bytes:
                return Media("video", _data_uri(_VIDEO_TYPES[extension], path.read_bytes()), poster_uri)
            strip_uri = _jpeg_uri(_frames(path, _STRIP_FRAMES, _STRIP_HEIGHT_PX))
        except RejectedError as error:
            return Media("none", note=f"its video cannot be shown: {error}")
    why = "too large to be embedded" if row["codec"] in _PLAYED_CODECS else f"browsers do not play {row['codec']}"
    return Media("strip", strip_uri, note=f"{_STRIP_FRAMES} frames of the video, which is {why}")


def poster_uri(output_uri: str, row: dict[str, Any]) -> str:
    """One small picture of a sample as a data URI; empty where it cannot be shown."""
    from gex_pipeline.media.sampling import run_pictures

    extension = row["media_extension"]
    with tempfile.TemporaryDirectory(prefix="gex-report-") as folder:
        path = fetched(output_uri, row, Path(folder))
        try:
            if extension in _IMAGE_TYPES:
                return _shrunk_uri(path.read_bytes(), _THUMBNAIL_PX)
            if extension == FRAMES_EXTENSION:
                pictures = iter(run_pictures(path.read_bytes(), 1))
                return _jpeg_uri(_with_height(picture, _THUMBNAIL_PX[1]) for picture in pictures)
            return _jpeg_uri(_frames(path, 1, _THUMBNAIL_PX[1]))
        except (RejectedError, DamagedRunError):
            return ""


def _picture(content: bytes, media_type: str, cap_bytes: int) -> Media:
    try:
        shrunk_uri = _shrunk_uri(content, _LARGE_PX)
    except RejectedError as error:
        return Media("none", note=f"its picture cannot be shown: {error}")
    if len(content) <= cap_bytes:
        return Media("image", _data_uri(media_type, content))
    return Media("image", shrunk_uri, note="shown smaller than it is")


def _strip_of_run(content: bytes, row: dict[str, Any]) -> Media:
    from gex_pipeline.media.sampling import run_pictures

    try:
        strip_uri = _jpeg_uri(_with_height(picture) for picture in run_pictures(content, _STRIP_FRAMES))
    except (RejectedError, DamagedRunError) as error:
        return Media("none", note=f"its frames cannot be shown: {error}")
    num = row["frames"]["num"] if row.get("frames") else "its"
    return Media("strip", strip_uri, note=f"{_STRIP_FRAMES} of {num} frames, which stand in the video's place")


def _with_height(picture_HWC: NDArray[np.uint8], height_px: int = _STRIP_HEIGHT_PX) -> NDArray[np.uint8]:
    import numpy as np
    from PIL import Image

    width_px = max(1, round(picture_HWC.shape[1] * height_px / picture_HWC.shape[0]))
    return np.asarray(Image.fromarray(picture_HWC).resize((width_px, height_px)))


def _frames(path: Path, num_frames: int, height_px: int) -> Iterator[NDArray[np.uint8]]:
    from gex_pipeline.media.frames import sample_frames

    return iter(sample_frames(path, num_frames, height_px))


def _jpeg_uri(frames: Iterator[NDArray[np.uint8]]) -> str:
    """Frames beside each other as one picture."""
    import numpy as np
    from PIL import Image

    picture = Image.fromarray(np.concatenate(list(frames), axis=1))
    picture.thumbnail((_WIDEST_PX, picture.height))  # JPEG takes no more than 65,500 pixels
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_POSTER_QUALITY)
    return _data_uri("image/jpeg", buffer.getvalue())


def _shrunk_uri(content: bytes, size_px: tuple[int, int]) -> str:
    import numpy as np

    return _jpeg_uri(iter([np.asarray(open_picture(content, size_px))]))


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def sample_json(sample: Sample) -> dict[str, Any]:
    """What ``report.json`` says about a shown sample: all but the media's bytes."""
    content = asdict(sample)
    content["media"] = {"kind": sample.media.kind, "note": sample.media.note}
    content["row"] = {**sample.row, "scores": sample.scores}
    return content
