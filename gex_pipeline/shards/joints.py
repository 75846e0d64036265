"""Compares a sample's segments with the source clips they came from: the first and last pictures of each. An image is
compared with what the clip that the middle of its parent falls in shows there.

Both pictures are shrunk to the same small size, the clip's fitted into the sample's frame with black beside it as
re-encoding does. The mean absolute difference of their values must stay under a bound that re-encoding keeps and
another clip's picture does not. A clip that is no longer there is a note: the shard itself may be right.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gex_pipeline import storage
from gex_pipeline.errors import FileMissingError, GexError, RejectedError, TransientError
from gex_pipeline.media.settings import VideoSettings
from gex_pipeline.shard_format import IMAGE_EXTENSIONS, MemberSpan
from gex_pipeline.shards.findings import Finding, Report, ShardCheck
from gex_pipeline.source_tars import copy_member

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gex_pipeline.shards.checks import OpenShard

    Picture = NDArray[np.uint8]

COPIED_BOUND = 1.0  # of 255: the same packets decode to the same picture
ENCODED_BOUND = 8.0  # re-encoding costs 2 to 4; neighbouring clips of one scene differ by 6 and mostly by far more
_MIDDLE_S = 0.02  # about half a frame: the middle of a video is mostly where one picture follows another
_SMALL_PX = 96  # width at which pictures are compared: finer, and the loss of the codec counts


@dataclass(frozen=True)
class _Part:
    """One segment, where its clip lies in the source file (None: it is the file), and how much may differ."""

    number: int
    segment: dict[str, Any]
    cut_s: tuple[float, float] | None
    bound: float


def check_joints(shard: OpenShard, path: Path, key: str, facts: dict[str, Any], report: Report) -> None:
    """The pictures at both ends of every segment, or an image, against those of the source clips."""
    if path.suffix[1:] in IMAGE_EXTENSIONS:
        _check_image(shard, path, key, facts, report)
        return

    is_of_clips = facts.get("parents") == [segment["clip_id"] for segment in facts["segments"]]
    # of packets that were copied out of samples, nobody says here whether they are the clips'
    bound = COPIED_BOUND if facts.get("made_by") == "copy" and is_of_clips else ENCODED_BOUND
    # inside what was a sample, a joint lies between two frames of the video where that has another rate
    slack_s = 1 / facts["fps"] if facts["fps"] and not is_of_clips else 0.0

    def compare(source: Path, part: _Part) -> None:
        _compare(path, source, part, slack_s, key, report)

    _with_clips(shard, key, _numbered(facts), report, (bound, compare))


def _check_image(shard: OpenShard, path: Path, key: str, facts: dict[str, Any], report: Report) -> None:
    """The middle of a clip; or of a video, whose segments it has: at a joint, rounding decides which clip it shows."""
    from gex_pipeline.media.sampling import PICTURE_ERRORS

    try:
        found = _opened(path)
    except PICTURE_ERRORS:
        return  # check_picture has told of it
    end_s = max(segment["offset_s"] + segment["duration_s"] for segment in facts["segments"])
    shown = [
        (number, segment)
        for number, segment in _numbered(facts)
        if -_MIDDLE_S <= end_s / 2 - segment["offset_s"] <= segment["duration_s"] + _MIDDLE_S
    ]
    differences: list[tuple[float, _Part]] = []

    def compare(source: Path, part: _Part) -> None:
        expected = _middle_pictures(source, part, end_s / 2)
        differences.append((_difference(found, expected, source, part), part))

    _with_clips(shard, key, shown, report, (ENCODED_BOUND, compare))
    if not shown or len(differences) < len(shown):  # without all that it may show, nothing is known
        return
    difference, part = min(differences, key=lambda item: item[0])
    _judge(difference, ("picture", part), key, report)


def _middle_pictures(source: Path, part: _Part, middle_s: float) -> list[Picture]:
    """What an image of a clip may show, or one of a video that has the clip where `middle_s` lies."""
    from gex_pipeline.media.frames import middle_frame_jpeg

    if part.segment["duration_s"] == 0:
        content, _, _ = middle_frame_jpeg(source, VideoSettings(), part.cut_s)
        return [_opened(io.BytesIO(content))]
    last_s = max(part.segment["duration_s"] - 0.001, 0.0)
    times_s = [middle_s - part.segment["offset_s"] + shift_s for shift_s in (-_MIDDLE_S, _MIDDLE_S)]
    return [_shown_in_clip(source, part, min(max(time_s, 0.0), last_s)) for time_s in times_s]


def _shown_in_clip(source: Path, part: _Part, time_s: float) -> Picture:
    """What a source clip shows so long after it begins: a cut where the file's time says, a file at its first frame."""
    from gex_pipeline.media.frames import frame_at

    if part.cut_s is None:
        return frame_at(source, time_s)
    return frame_at(source, part.cut_s[0] + time_s, in_file_time=True)


def check_frames_against_clips(
    shard: OpenShard, pictures: Sequence[bytes], key: str, facts: dict[str, Any], report: Report
) -> None:
    """Of every segment that frames show, the frame in the middle, against what its source clip shows at that time."""
    span_s = facts["duration_s"] / len(pictures)

    def compare(source: Path, part: _Part) -> None:
        offset_s, duration_s = part.segment["offset_s"], part.segment["duration_s"]
        # at a joint, rounding decides what is shown
        edge_s = min(1 / facts["fps"] if facts["fps"] else 0.0, duration_s / 4)
        times_s = [(number, (number + 0.5) * span_s - offset_s) for number in range(len(pictures))]
        inside = [(number, time_s) for number, time_s in times_s if edge_s <= time_s < duration_s - edge_s]
        if not inside:
            return
        number, time_s = inside[len(inside) // 2]
        found = _opened(io.BytesIO(pictures[number]))
        difference = _difference(found, [_shown_in_clip(source, part, time_s)], source, part)
        _judge(difference, (f"sampled (number {number})", part), key, report)

    _with_clips(shard, key, _numbered(facts), report, (ENCODED_BOUND, compare))


def _numbered(facts: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    return list(enumerate(facts["segments"]))


def _with_clips(
    shard: OpenShard,
    key: str,
    segments: Sequence[tuple[int, dict[str, Any]]],
    report: Report,
    judge: tuple[float, Callable[[Path, _Part], None]],
) -> None:
    """Compare these numbered segments with their source clips; `judge` is how much may differ and who compares."""
    check, clips = shard.check, shard.clips or {}
    bound, compare = judge
    for number, segment in segments:
        clip = clips.get(segment["clip_id"])
        if clip is None:
            report.add("joint", f"clip {segment['clip_id']} is in no table", f"the source of segment {number}", key)
            continue
        with tempfile.TemporaryDirectory(prefix="gex-clip-") as folder:
            try:
                source = _fetch(clip, Path(folder))
                compare(source, _Part(number, segment, _cut(check, clip), bound))
            except TransientError:
                raise
            except GexError as error:
                found = f"the source of segment {number} cannot be had: {error}"
                report.findings.append(Finding(report.shard, key, "source", found, "the source clip", is_note=True))
            except RejectedError as error:
                report.add("joint", f"segment {number}: {error}", "pictures to compare", key)


def _cut(check: ShardCheck, clip: dict[str, Any]) -> tuple[float, float] | None:
    return (clip["start_s"], clip["end_s"]) if check.are_clips_cut else None


def _fetch(clip: dict[str, Any], folder: Path) -> Path:
    """A local file with the clip's media."""
    uri = clip["media_uri"]
    if storage.is_local(uri) and clip["media_offset_bytes"] is None:
        if not storage.exists(uri):
            raise FileMissingError(f"{uri!r} does not exist")
        return storage.local_path(uri)
    target = folder / f"clip{Path(storage.name_of(uri)).suffix}"
    if clip["media_offset_bytes"] is not None:
        target = folder / "clip.mp4"
        span = MemberSpan(clip["media_offset_bytes"], clip["media_size_bytes"])
        if stamp := clip["media_stamp"]:
            if changed := copy_member(uri, span, target, stamp, member_only=True):
                raise FileMissingError(changed)
        else:
            storage.copy_range(uri, span.offset_bytes, span.size_bytes, target)
    else:
        found = storage.info(uri)
        if found is None:
            raise FileMissingError(f"{uri!r} does not exist")
        storage.copy_range(uri, 0, found.num_bytes, target)
    return target


def _compare(path: Path, source: Path, part: _Part, slack_s: float, key: str, report: Report) -> None:
    from gex_pipeline.media.frames import frame_at

    last_s = max(part.segment["duration_s"] - 0.001, 0.0)
    for name, time_s, inwards_s in (("first", 0.0, slack_s), ("last", last_s, -slack_s)):
        expected = [_shown_in_clip(source, part, time_s)]
        at_s = part.segment["offset_s"] + time_s
        difference = _difference(frame_at(path, at_s), expected, source, part)
        if difference > part.bound and slack_s:
            further_in = frame_at(path, max(at_s + inwards_s, 0.0))
            difference = min(difference, _difference(further_in, expected, source, part))
        _judge(difference, (name, part), key, report)


def _difference(found: Picture, expected: Sequence[Picture], source: Path, part: _Part) -> float:
    """From the nearest of these pictures of a clip, as they are or, of HDR, as re-encoding converts them."""
    from gex_pipeline.media import hdr

    difference = min(picture_difference(found, picture) for picture in expected)
    if difference > part.bound and (transfer := hdr.transfer_of(source)) in (hdr.PQ, hdr.HLG):
        difference = min(picture_difference(found, hdr.as_sdr(picture, transfer)) for picture in expected)
    return difference


def _judge(difference: float, place: tuple[str, _Part], key: str, report: Report) -> None:
    name, part = place
    if difference > part.bound:
        what = f"{name} frame of segment {part.number} differs by {difference:.1f} of 255 from its source clip"
        report.add("joint", what, f"at most {part.bound:g}", key)


def _opened(file: Path | io.BytesIO) -> Picture:
    import numpy as np

    from gex_pipeline.media.sampling import opened_picture

    with opened_picture(file) as picture:
        return np.asarray(picture.convert("RGB"))


def picture_difference(found: Picture, expected: Picture) -> float:
    """Mean absolute difference, 0 to 255, of two RGB pictures (H, W, 3), the second fitted into the first's shape."""
    import numpy as np
    from PIL import Image, ImageOps

    width_px = min(_SMALL_PX, found.shape[1])  # enlarged, it would lack what the other one shows
    size_px = (width_px, max(1, round(width_px * found.shape[0] / found.shape[1])))
    seen = Image.fromarray(found).resize(size_px, Image.Resampling.BOX)
    fitted = ImageOps.pad(Image.fromarray(expected), size_px, Image.Resampling.BOX, color=(0, 0, 0))
    return float(np.abs(np.asarray(seen, dtype=float) - np.asarray(fitted, dtype=float)).mean())
