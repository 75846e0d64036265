"""A small published output with the real writers: videos whose frames say which clip and which frame they are.

Made once a session, without Ray. Each source has one LVLT sample of two clips, an LVST sample that points into the
LVLT shard, and an IT sample.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from gex_pipeline.shard_format import SampleRecord, Segment, make_key
from gex_pipeline.shards.manifest import Manifest, Snapshot, read_manifest
from tests.media.making_clips import Make, make_clip, number_of, picture_of, read_number
from tests.report.outputs import entry, publish, snapshot, write_shard
from trainer.data_settings import DataSettings

NUM_FRAMES = 12
SIZE_PX = (96, 96)  # square: nothing of a number is cut off
IMAGE_PX = 48
SHARD_SAMPLES = 4


def source_of(number: int) -> str:
    return f"video{number:02d}"


def long_sample(number: int, folder: Path) -> tuple[SampleRecord, bytes]:
    """A video whose frames are (number mod 16, 0) to (number mod 16, 11)."""
    video = folder / f"{number % 16}.mp4"
    if not video.exists():
        make_clip(video, number % 16, Make(num_frames=NUM_FRAMES, size_px=SIZE_PX))
    source = source_of(number)
    half_s = NUM_FRAMES / 50
    clips = [f"{number:031x}{half}" for half in "ab"]
    segments = tuple(
        Segment(clip, source, half * half_s, half_s, half * half_s, (half + 1) * half_s, f"half {half}")
        for half, clip in enumerate(clips)
    )
    record = SampleRecord(
        key=make_key("LVLT", clips),
        granularity="LVLT",
        source_id=source,
        parents=tuple(clips),
        segments=segments,
        text=f"half 0 of {number}. half 1 of {number}.",
        duration_s=2 * half_s,
        width_px=SIZE_PX[0],
        height_px=SIZE_PX[1],
        fps=25,
        codec="h264",
        made_by="copy",
    )
    return record, video.read_bytes()


def image_sample(parent: SampleRecord, number: int) -> tuple[SampleRecord, bytes]:
    """A picture that says (number mod 16, 6)."""
    record = replace(
        parent,
        key=make_key("IT", [parent.parents[0]]),
        granularity="IT",
        parents=parent.parents[:1],
        segments=parent.segments[:1],
        text=f"a picture of {number}",
        codec="jpeg",
        made_by="frame",
        media_extension="jpg",
    )
    return record, jpeg_of(number_of(number % 16, 6))


def jpeg_of(number: int, size_px: tuple[int, int] = SIZE_PX) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture_of(number, size_px)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def add_snapshot(output: Path, numbers: Sequence[int], scratch: Path) -> None:
    """Publish one more snapshot with these sources, four samples a shard."""
    manifest = read_manifest(str(output)) or Manifest("numbered frames")
    scratch.mkdir(parents=True, exist_ok=True)
    new: Snapshot | None = None
    for first in range(0, len(numbers), SHARD_SAMPLES):
        shards = _write_shards(output, [long_sample(number, scratch) for number in numbers[first:][:SHARD_SAMPLES]])
        new = shards if new is None else _joined(new, shards)
    assert new is not None
    new = replace(new, snapshot=len(manifest.snapshots))
    publish(output, replace(manifest, snapshots=(*manifest.snapshots, new)))


def _write_shards(output: Path, samples: list[tuple[SampleRecord, bytes]]) -> Snapshot:
    number = len(list((output / "LVLT").glob("*.tar")))
    numbers = [int(record.source_id.removeprefix("video")) for record, _ in samples]
    images = [image_sample(record, which) for (record, _), which in zip(samples, numbers, strict=True)]
    shards = {"LVLT": write_shard(output, "LVLT", samples, number), "IT": write_shard(output, "IT", images, number)}
    placed = [replace(record, **place) for record, place in _places(output, samples, number)]
    short = [
        replace(
            record,
            key=make_key("LVST", [record.key]),
            granularity="LVST",
            parents=(record.key,),
            text=f"{record.source_id} in short",
            made_by="reference",
        )
        for record in placed
    ]
    shards["LVST"] = write_shard(output, "LVST", [(record, b"") for record in short], number)
    nodes = {
        "LVLT": entry("LVLT", "integrate", "SVST", shards["LVLT"]),
        "LVST": entry("LVST", "compress_text", "LVLT", shards["LVST"]),
        "IT": entry("IT", "compress_video", "SVST", shards["IT"], "jpg"),
    }
    return snapshot(0, nodes, (), [], {})


def _places(output: Path, samples: list[tuple[SampleRecord, bytes]], number: int):
    import pyarrow.parquet as pq

    columns = ("key", "media_uri", "media_offset_bytes", "media_size_bytes")
    rows = pq.read_table(output / "LVLT" / f"LVLT-{number:06d}.parquet", columns=list(columns)).to_pylist()
    by_key = {row.pop("key"): row for row in rows}
    return [(record, by_key[record.key]) for record, _ in samples]


def _joined(first: Snapshot, second: Snapshot) -> Snapshot:
    nodes = {
        name: replace(node, shards=(*node.shards, *second.granularities[name].shards))
        for name, node in first.granularities.items()
    }
    return replace(first, granularities=nodes)


def make_numbered_output(folder: Path, num_sources: int = 18) -> Path:
    """An output of one snapshot with this many samples of each of LVLT, LVST and IT."""
    output = folder / "out"
    add_snapshot(output, range(num_sources), folder / "scratch")
    return output


def grouped(folder: Path, *groups: tuple[str, Sequence[str]]) -> Path:
    """An output with one granularity GRP beside the others: (source_id, sources of the clips) a sample."""
    output = make_numbered_output(folder, 4)
    record, video = long_sample(0, folder / "scratch")
    samples = []
    for number, (source_id, names) in enumerate(groups):
        segments = tuple(replace(record.segments[0], source_id=name) for name in names)
        key = make_key("GRP", [str(number)])
        text = f"half 0 of {number}"
        samples.append(
            (replace(record, key=key, granularity="GRP", source_id=source_id, segments=segments, text=text), video)
        )
    shard = write_shard(output, "GRP", samples)
    manifest = read_manifest(str(output))
    nodes = {**manifest.snapshots[0].granularities, "GRP": entry("GRP", "integrate", "SVST", shard)}
    publish(output, replace(manifest, snapshots=(replace(manifest.snapshots[0], granularities=nodes),)))
    return output


def settings_of(output: Path | str, **values) -> DataSettings:
    """Small settings: six frames of LVLT, three of LVST, one of IT."""
    granularities = {
        "LVLT": {"num_frames": 6, "n_iter_video": 3, "n_iter_text": 3},
        "LVST": {"num_frames": 3},
        "IT": {},
    }
    defaults = {"granularities": granularities, "batch_size": 4, "image_size_px": IMAGE_PX, "num_workers": 0}
    return DataSettings.model_validate({"dataset": str(output), **defaults, "window_shards": 2, **values})


def numbers_of(frames: np.ndarray) -> list[tuple[int, int]]:
    """(clip, frame) of every frame (d, 3, H, W)."""
    read = [read_number(frame.transpose(1, 2, 0)) for frame in frames]
    return [divmod(number, 256) for number in read]
