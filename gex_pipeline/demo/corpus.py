"""Draws a small corpus of videos in InternVid's shape: metadata, clips, references, and faults that are known.

In: a folder and `CorpusSettings`. Out, in the folder: `clips.jsonl` (InternVid's columns and `Channel`), `clips/*.mp4`
(one file a clip, named by id and times with `-` for `:`), `references.jsonl` (for each source with at least four usable
clips: one sentence that sums them up, and their number), and `corpus.json`, written last: settings, faults with the
reason each must end in, SHA-256 of every file. Invariants: the same settings give the same bytes (with the same
libraries); a folder without a `corpus.json` that matches it is not a corpus and is drawn anew, by one process at a time
(`run.lock`). Does not write a recipe, does not read the corpus back.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from gex_pipeline.cores import num_cores
from gex_pipeline.demo.captions import reference
from gex_pipeline.demo.faults import (
    CLAIMED_TOO_MUCH_S,
    GROUP_CLIPS,
    MIN_SOURCES,
    Fault,
    plan_faults,
    spoil_file,
    spoil_row,
    usable_clips,
)
from gex_pipeline.demo.scenes import draw_scene, write_clip
from gex_pipeline.demo.stories import Source, make_sources, seeded
from gex_pipeline.errors import GexError
from gex_pipeline.layout import Layout
from gex_pipeline.progress import progress
from gex_pipeline.run_lock import held

_VERSION = 1  # of what the settings draw: raise it whenever the same settings give other bytes
_DRAWING = "corpus.drawing"  # marks a folder as ours while it is half drawn
_FILES = ("clips.jsonl", "references.jsonl", "corpus.json")
Row = dict[str, Any]


@dataclass(frozen=True)
class CorpusSettings:
    """What to draw."""

    num_sources: int = 24
    seed: int = 7
    height_px: int = 144
    width_px: int = 192
    fps: int = 12
    faults: bool = True  # plant the bad inputs of `faults`
    workers: int | None = None  # processes; None: one a core. Changes nothing in what is drawn

    def __post_init__(self) -> None:
        least = MIN_SOURCES if self.faults else 1
        if self.num_sources < least:
            raise GexError(f"num_sources is {self.num_sources}; a corpus with faults={self.faults} needs {least}")
        if min(self.height_px, self.width_px) < 64 or self.height_px % 2 or self.width_px % 2:
            raise GexError(f"{self.width_px}x{self.height_px} px: both sides must be even and at least 64")
        if self.seed < 0:
            raise GexError(f"seed is {self.seed}; expected 0 or more")
        if not 1 <= self.fps <= 60:
            raise GexError(f"fps is {self.fps}; expected 1 to 60")


@dataclass(frozen=True)
class CorpusSummary:
    """What is in the folder now; `num_clips` counts the rows of clips.jsonl, bad ones included."""

    folder: Path
    num_sources: int
    num_clips: int
    num_faults: int
    num_bytes: int
    was_drawn: bool  # False: it was already there


@dataclass(frozen=True)
class _ClipFile:
    """One file to draw: `seed` makes what captions leave open, `size_px` is (height, width)."""

    name: str
    clip: int
    size_px: tuple[int, int]
    seed: tuple[int, int, int]


def draw_corpus(folder: Path, settings: CorpusSettings) -> CorpusSummary:
    """Draw the corpus into `folder` unless it is there already, and tell the current progress of it.

    Raises:
        GexError: the folder holds clips that this function did not draw, or another process is drawing into it.
    """
    done = _recognise(folder, settings)
    if done is not None:
        return done
    _check_ours(folder)
    with held(Layout(str(folder)), "demo corpus"):
        # Again: another process may have drawn it before this one got the lock.
        return _recognise(folder, settings) or _draw(folder, settings)


def _draw(folder: Path, settings: CorpusSettings) -> CorpusSummary:
    _clear(folder)
    sources = make_sources(settings.num_sources, settings.seed, settings.fps)
    faults = plan_faults(sources, settings.seed) if settings.faults else []
    files = [_files_of(index, sources, faults, settings) for index in range(len(sources))]
    _draw_all(folder / "clips", list(zip(sources, files, strict=True)), settings)
    for fault in faults:
        spoil_file(fault, folder / "clips" / files[fault.source][fault.clips[0]].name)
    rows = _rows(sources, faults, settings)
    _write_lines(folder / "clips.jsonl", rows)
    _write_lines(folder / "references.jsonl", _references(sources, faults))
    planted = [_account(fault, sources[fault.source], files[fault.source]) for fault in faults]
    _write_account(folder, settings, planted, len(rows))
    (folder / _DRAWING).unlink()
    return _summary(folder, settings, json.loads((folder / "corpus.json").read_text()), was_drawn=True)


def _recognise(folder: Path, settings: CorpusSettings) -> CorpusSummary | None:
    """The finished corpus of these settings, every byte of it as it was drawn."""
    try:
        account = json.loads((folder / "corpus.json").read_text())
        is_same = account["version"] == _VERSION and account["settings"] == _identity(settings)
        if not is_same or account["files"] != _digests(folder):
            return None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return _summary(folder, settings, account, was_drawn=False)


def _check_ours(folder: Path) -> None:
    ours = (folder / _DRAWING).exists() or _is_account(folder / "corpus.json")
    taken = [name for name in ("clips", *_FILES) if (folder / name).exists()]
    if taken and not ours:
        raise GexError(f"{folder} holds {', '.join(taken)} that are no demo corpus; name an empty folder")


def _clear(folder: Path) -> None:
    (folder / _DRAWING).touch()
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
    if (folder / "clips").exists():
        shutil.rmtree(folder / "clips")
    (folder / "clips").mkdir()


def _is_account(path: Path) -> bool:
    try:
        return {"version", "settings", "files"} <= set(json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return False


def _files_of(index: int, sources: list[Source], faults: list[Fault], settings: CorpusSettings) -> list[_ClipFile]:
    source = sources[index]
    small = {c for f in faults if f.name == "mixed_sizes" and f.source == index for c in f.clips}
    size_px = (settings.height_px, settings.width_px)
    small_px = (size_px[0] * 2 // 3 // 2 * 2, size_px[1] * 2 // 3 // 2 * 2)
    files = []
    for position in range(len(source.clips)):
        start, end = _times(index, position, sources, faults, settings.fps)
        name = f"{source.youtube_id}_{start}_{end}.mp4".replace(":", "-")
        seed = (settings.seed, index, position)
        files.append(_ClipFile(name, position, small_px if position in small else size_px, seed))
    return files


def _times(index: int, position: int, sources: list[Source], faults: list[Fault], fps: int) -> tuple[str, str]:
    """Start and end as metadata and file name claim them."""
    clip = sources[index].clips[position]
    lies = any(f.name == "claims_too_much" and f.source == index and position in f.clips for f in faults)
    end_frame = clip.start_frame + clip.num_frames + (CLAIMED_TOO_MUCH_S * fps if lies else 0)
    return _timestamp(clip.start_frame, fps), _timestamp(end_frame, fps)


def _timestamp(frame: int, fps: int) -> str:
    seconds, ms = divmod(round(1000 * frame / fps), 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{ms:03d}"


def _draw_all(folder: Path, jobs: list[tuple[Source, list[_ClipFile]]], settings: CorpusSettings) -> None:
    progress().stage("draw the corpus", len(jobs), "sources")
    workers = min(settings.workers or num_cores(), len(jobs))
    if workers == 1:
        for source, files in jobs:
            _draw_source(folder, source, files, settings.fps)
            progress().advance(1)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        drawn = [pool.submit(_draw_source, folder, source, files, settings.fps) for source, files in jobs]
        for future in as_completed(drawn):
            future.result()
            progress().advance(1)


def _draw_source(folder: Path, source: Source, files: list[_ClipFile], fps: int) -> None:
    for file in files:
        clip = source.clips[file.clip]
        frames = draw_scene(clip.scene, clip.num_frames, fps, file.size_px, file.seed)
        write_clip(folder / file.name, frames, fps, file.size_px)


def _rows(sources: list[Source], faults: list[Fault], settings: CorpusSettings) -> list[Row]:
    """InternVid's columns and `Channel`, source by source in time order; the duplicate comes last."""
    rows: list[Row] = []
    again: list[Row] = []
    for index, source in enumerate(sources):
        rng = seeded(settings.seed, "scores", index)
        for position, clip in enumerate(source.clips):
            start, end = _times(index, position, sources, faults, settings.fps)
            row = {
                "YoutubeID": source.youtube_id,
                "Start_timestamp": start,
                "End_timestamp": end,
                "Caption": clip.caption,
                "Aesthetic_Score": round(rng.uniform(3.6, 6.2), 4),  # made up, in InternVid's range
                "UMT_Score": round(rng.uniform(0.32, 0.58), 4),
                "Channel": source.channel,
            }
            for fault in (f for f in faults if f.source == index and position in f.clips):
                row = spoil_row(fault, row)
                again += [row] if fault.name == "duplicate_row" else []
            rows.append(row)
    return rows + again


def _references(sources: list[Source], faults: list[Fault]) -> list[Row]:
    references: list[Row] = []
    for index, source in enumerate(sources):
        usable = usable_clips(sources, faults, index)
        if len(usable) >= GROUP_CLIPS:
            sentence = reference([source.clips[position].scene for position in usable])
            references.append({"YoutubeID": source.youtube_id, "Reference": sentence, "clips": len(usable)})
    return references


def _account(fault: Fault, source: Source, files: list[_ClipFile]) -> Row:
    return {
        "fault": fault.name,
        "reason": None if fault.reason is None else str(fault.reason),
        "YoutubeID": source.youtube_id,
        "files": [f"clips/{files[position].name}" for position in fault.clips],
    }


def _write_account(folder: Path, settings: CorpusSettings, planted: list[Row], num_rows: int) -> None:
    account = {
        "version": _VERSION,
        "settings": _identity(settings),
        "num_clips": num_rows,
        "faults": planted,
        "files": _digests(folder),
    }
    unfinished = folder / "corpus.json.part"
    unfinished.write_text(json.dumps(account, indent=1) + "\n")
    unfinished.replace(folder / "corpus.json")


def _identity(settings: CorpusSettings) -> Row:
    """The settings that decide what is drawn."""
    return {key: value for key, value in asdict(settings).items() if key != "workers"}


def _digests(folder: Path) -> dict[str, str]:
    paths = [folder / "clips.jsonl", folder / "references.jsonl", *sorted((folder / "clips").iterdir())]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _write_lines(path: Path, rows: list[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _summary(folder: Path, settings: CorpusSettings, account: Row, *, was_drawn: bool) -> CorpusSummary:
    return CorpusSummary(
        folder=folder,
        num_sources=settings.num_sources,
        num_clips=account["num_clips"],
        num_faults=len(account["faults"]),
        num_bytes=sum((folder / name).stat().st_size for name in account["files"]),
        was_drawn=was_drawn,
    )
