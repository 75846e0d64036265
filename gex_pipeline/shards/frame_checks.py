"""Verifies the frames of one sample: the JPEG files in, findings out.

There are as many as the sample says, of the size it says, and they decode: the first and the last one where the tar's
digest is right, every one where nothing vouches for the bytes or when asked, and then they show their source clips.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gex_pipeline.shards.findings import Report
from gex_pipeline.shards.joints import check_frames_against_clips

if TYPE_CHECKING:
    from gex_pipeline.shards.checks import OpenShard


def check_frames(shard: OpenShard, pictures: Sequence[bytes], key: str, facts: dict[str, Any], report: Report) -> None:
    """Number, size and content of a sample's frames, inside the tar or referenced from it."""
    stated = facts.get("frames")
    stated = stated if isinstance(stated, dict) else None
    if stated is not None or shard.rows is not None:
        report.same("frames", len(pictures), (stated or {}).get("num", 0), key, "number of frames")
    is_whole = shard.check.is_deep or shard.is_suspect
    are_sound = True
    for number, content in enumerate(pictures):
        is_decoded = is_whole or number in (0, len(pictures) - 1)
        size_px = _size_px(content, number, key, report, is_decoded=is_decoded)
        are_sound = are_sound and size_px is not None
        if size_px is not None and stated is not None:
            expected_px = (stated.get("width_px"), stated.get("height_px"))
            report.same("frames", size_px, expected_px, key, f"size in px of frame {number}")
    if shard.clips is not None and facts.get("segments") and pictures and are_sound:
        check_frames_against_clips(shard, pictures, key, facts, report)


def _size_px(content: bytes, number: int, key: str, report: Report, *, is_decoded: bool) -> tuple[int, int] | None:
    """Width and height of a frame; None, and a finding, where it is none."""
    from gex_pipeline.media.sampling import PICTURE_ERRORS, opened_picture

    try:
        with opened_picture(io.BytesIO(content), ("JPEG",)) as picture:
            if is_decoded:
                picture.load()
            return picture.size
    except PICTURE_ERRORS as error:
        found = f"frame {number}: {type(error).__name__}" + ("" if "BytesIO" in str(error) else f": {error}")
        report.add("frames", found, "a JPEG that decodes", key)
        return None
