"""What can go wrong: terminal or transient errors, and the enumeration of reject reasons.

A `GexError` stops a run and is shown to a person as one message; a `Rejection` costs one clip
or one sample and becomes a row of ``tables/rejects*.parquet``.
"""

from __future__ import annotations

import re
from enum import StrEnum

_ERROR_LINE = re.compile(r"[\w.]*(?:Error|Exception)\b.*:")
_MAX_TOLD = 600  # characters of another process's error


class GexError(Exception):
    """A terminal error: trying again changes nothing until a person does something."""

    transient = False


class TransientError(GexError):
    """An error that may pass (network, throttling, a lost worker): worth retrying with backoff."""

    transient = True


class StuckError(TransientError):
    """Something in this run's Ray no longer answers and keeps what it holds: only another run is worth a try."""


class RecipeError(GexError):
    """The recipe is wrong; raised before anything starts, naming file, key, value and expectation."""


class RecipeChangedError(RecipeError):
    """The output has a snapshot of another recipe, and nobody has said that this one is meant."""


class FileMissingError(GexError):
    """A file that was named is not there."""


class FileTooShortError(GexError):
    """A file ends before the bytes that were asked for: it is not the one that was indexed."""


class MissingExtraError(GexError):
    """An optional part is needed and not installed."""

    def __init__(self, package: str, extra: str) -> None:
        # vLLM and CUDA's PyTorch hold some packages lower than the rest does
        pins = "docker/constraints-gpu.txt" if extra == "vllm" else "constraints.txt"
        how = f"pip install -c {pins} -e '.[{extra}]'"
        super().__init__(f"{package} is not installed; in GEX's folder: {how}")


class BalanceError(GexError):
    """The accounts of a stage do not add up: a clip was lost or counted twice."""


class GateError(GexError):
    """A data set whose means fall outside the recipe's publication gates is not published."""


class State(StrEnum):
    """How a clip or sample that is not in the output ended."""

    excluded = "excluded"  # by a rule of the recipe; nothing is wrong with it
    rejected = "rejected"  # something is wrong with it


class Reason(StrEnum):
    """Why a clip or a sample is not in the output. The value is what tables and reports show."""

    # ingest: metadata
    unreadable_row = "unreadable_row"
    unreadable_timestamp = "unreadable_timestamp"
    end_not_after_start = "end_not_after_start"
    missing_caption = "missing_caption"
    missing_source_id = "missing_source_id"
    unsafe_source_id = "unsafe_source_id"
    unsafe_media_path = "unsafe_media_path"
    duplicate_clip = "duplicate_clip"
    filtered_by_where = "filtered_by_where"
    # plan
    too_few_clips = "too_few_clips"
    overlaps_previous = "overlaps_previous"
    missing_group_value = "missing_group_value"
    # media
    media_missing = "media_missing"
    media_ambiguous = "media_ambiguous"
    media_empty = "media_empty"
    media_truncated = "media_truncated"
    not_a_video = "not_a_video"
    no_frames = "no_frames"
    undecodable = "undecodable"
    duration_mismatch = "duration_mismatch"
    media_too_large = "media_too_large"
    ffmpeg_failed = "ffmpeg_failed"
    ffmpeg_timeout = "ffmpeg_timeout"
    media_changed = "media_changed"
    # summaries
    prompt_too_long = "prompt_too_long"
    engine_error = "engine_error"
    no_answer = "no_answer"
    summary_empty = "summary_empty"
    summary_truncated = "summary_truncated"
    summary_too_short = "summary_too_short"
    summary_too_long = "summary_too_long"
    summary_not_shorter = "summary_not_shorter"
    summary_refusal = "summary_refusal"
    summary_prompt_echo = "summary_prompt_echo"
    summary_meta = "summary_meta"
    summary_repetition = "summary_repetition"
    summary_ungrounded = "summary_ungrounded"
    gate_failed = "gate_failed"


class RejectedError(Exception):
    """Raised inside a stage for one clip or sample; caught at the shard's boundary.

    `detail` is free text for a person (bounded to 2000 characters in the tables).
    """

    def __init__(self, reason: Reason, detail: str = "", *, parent_id: str | None = None) -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail[-2000:]
        self.parent_id = parent_id


def innermost(error: BaseException) -> str:
    """One line of at most 600 characters: the last error of the traces that `error` tells as text, else all it says.

    So Ray tells of its workers: trace after trace in one message, the root cause last.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    start = max((number for number, line in enumerate(lines) if _ERROR_LINE.match(line)), default=0)
    return " ".join(lines[start:])[:_MAX_TOLD]
