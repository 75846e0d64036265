"""Verifies the videos, pictures and frames of a shard: a sample in, findings out.

A video must open, hold as many seconds as its sample says and its segments add up to, and decode: the first and
the last pictures where the tar's digest is right, every frame where nothing vouches for the bytes or when asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gex_pipeline import storage
from gex_pipeline.errors import GexError, RejectedError, TransientError
from gex_pipeline.media.settings import VideoSettings
from gex_pipeline.shard_format import FRAMES_EXTENSION, IMAGE_EXTENSIONS, split_run
from gex_pipeline.shards.checks import OpenShard, media_members
from gex_pipeline.shards.findings import Report
from gex_pipeline.shards.foreign import number_of, segments_of
from gex_pipeline.shards.frame_checks import check_frames
from gex_pipeline.shards.joints import check_joints
from gex_pipeline.shards.reader import Member, TarSample

_MAX_DURATION_S = 30 * 24 * 3600.0
_ROUNDING_S = 1e-3


def check_media(shard: OpenShard, sample: TarSample, facts: dict[str, Any], report: Report, folder: Path) -> None:
    """Every video and picture of a sample, inside the tar or referenced from it."""
    row = (shard.rows or {}).get(sample.key)
    facts = row or facts
    members = list(media_members(sample))
    for member in members:
        path = folder / f"media.{member.extension.rpartition('.')[2]}"
        try:
            _copy_member(shard, member, path)
            _check_file(shard, sample, facts if len(members) == 1 else {}, report, path)
        except TransientError:
            raise
        except GexError as error:
            report.add("video", str(error), "a readable member", sample.key)
        finally:
            path.unlink(missing_ok=True)
    is_referenced = row is not None and row["media_uri"] not in (None, shard.check.shard.name)
    if sample.frames or (facts.get("frames") and not is_referenced and not facts.get("video")):
        check_frames(shard, [shard.read(member) for member in sample.frames], sample.key, facts, report)
    if row is not None and is_referenced:
        _check_reference(shard, sample, row, report, folder)


def _copy_member(shard: OpenShard, member: Member, path: Path) -> None:
    storage.copy_range(str(shard.path), member.offset_bytes, member.size_bytes, path)


def _check_reference(shard: OpenShard, sample: TarSample, row: dict[str, Any], report: Report, folder: Path) -> None:
    """A video, or frames, or both, that lie in the parent's shard."""
    path = folder / f"media.{row['media_extension']}"
    uri = storage.join(shard.check.output_uri, row["media_uri"])
    run = (row["media_offset_bytes"], row["media_size_bytes"])
    try:
        if row["media_extension"] != FRAMES_EXTENSION:
            storage.copy_range(uri, *run, path)
            _check_file(shard, sample, row, report, path)
            run = (row.get("frames_offset_bytes"), row.get("frames_size_bytes"))
        if run[1] is not None:
            check_frames(shard, split_run(storage.read_range(uri, *run)), sample.key, row, report)
    except TransientError:
        raise
    except GexError as error:
        report.add("reference", str(error), "the parent's media", sample.key)
    finally:
        path.unlink(missing_ok=True)


def _check_file(shard: OpenShard, sample: TarSample, facts: dict[str, Any], report: Report, path: Path) -> None:
    if path.suffix[1:] in IMAGE_EXTENSIONS:
        check_picture(path, sample.key, facts, report)
    else:
        check_video(shard, path, sample.key, facts, report)
    if shard.clips is not None and facts.get("segments"):
        check_joints(shard, path, sample.key, facts, report)


def check_picture(path: Path, key: str, facts: dict[str, Any], report: Report) -> None:
    """A picture decodes and has the size its sample says."""
    from gex_pipeline.media.sampling import PICTURE_ERRORS, opened_picture

    try:
        with opened_picture(path) as picture:
            picture.load()
            size_px = picture.size
    except PICTURE_ERRORS as error:
        report.add("picture", f"{type(error).__name__}: {error}".replace(str(path), path.name), "a picture", key)
        return
    if facts.get("width_px") and facts.get("height_px"):
        report.same("picture", size_px, (facts["width_px"], facts["height_px"]), key, "size in px")


def check_video(shard: OpenShard, path: Path, key: str, facts: dict[str, Any], report: Report) -> None:
    """A video opens, decodes, and is what its sample says."""
    from gex_pipeline.media.frames import frame_at
    from gex_pipeline.media.probe import probe_video

    is_whole = shard.check.is_deep or shard.is_suspect
    settings = VideoSettings(check="decode" if is_whole else "packets", max_duration_s=_MAX_DURATION_S)
    try:
        probe = probe_video(path, settings)
        for time_s in () if is_whole else (0.0, probe.duration_s):
            frame_at(path, time_s)
    except RejectedError as error:
        report.add("video", str(error), "a video that decodes", key)
        return
    if facts.get("width_px") and facts.get("codec"):
        expected = (facts["codec"], facts["width_px"], facts["height_px"])
        report.same("video", (probe.codec, probe.width_px, probe.height_px), expected, key, "codec and size in px")
    frame_s = probe.duration_s / max(probe.num_frames, 1)
    _check_duration(probe.duration_s, frame_s, key, facts, report)


def _check_duration(found_s: float, frame_s: float, key: str, facts: dict[str, Any], report: Report) -> None:
    """Said, measured and summed seconds agree: within one frame, or one a joint."""
    said_s = number_of(facts, "duration_s", "duration")
    if said_s is None:
        return
    if abs(found_s - said_s) > frame_s + _ROUNDING_S:
        report.add("duration", f"the video holds {found_s:.3f} s", f"{said_s:.3f} s within a frame", key)
    segments = segments_of(facts.get("segments"))
    if not segments or len(segments) < len(facts["segments"]):  # what others call so
        return
    allowed_s = frame_s * len(segments) + _ROUNDING_S
    sum_s = sum(segment["duration_s"] for segment in segments)
    if abs(found_s - sum_s) > allowed_s:
        report.add("duration", f"the video holds {found_s:.3f} s", f"its segments' {sum_s:.3f} s", key)
    end_s = 0.0
    for number, segment in enumerate(segments):
        if abs(segment["offset_s"] - end_s) > allowed_s:
            what = f"segment {number} at {segment['offset_s']:.3f} s"
            report.add("segments", what, f"at {end_s:.3f} s, where the one before ends", key)
        end_s = segment["offset_s"] + segment["duration_s"]
