"""A small published output, made with the real writers: clips of solid colours, five of them in two sources."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa

from gex_pipeline import storage
from gex_pipeline.media.frames import middle_frame_jpeg
from gex_pipeline.media.settings import VideoSettings
from gex_pipeline.receipts import LOSS_SCHEMA, write_receipt, write_table
from gex_pipeline.shard_format import Receipt, SampleRecord, Segment, ShardWriter, make_key, text_digest
from gex_pipeline.shards.manifest import Account, GranularityEntry, Manifest, ShardEntry, Snapshot

HOSTILE = "<script>alert('caption')</script> & \"quoted\" <img src=x onerror=alert(2)> </style>"
RED, GREEN, BLUE, YELLOW, GREY = (220, 20, 20), (20, 180, 20), (20, 20, 220), (220, 200, 20), (120, 120, 120)
# (source, start_s, end_s, caption, colour): durations 2, 2, 3 and 2, 1 s; words 3, 2, 7 and 1, 2.
CLIPS = [
    ("alpha", 0.0, 2.0, "a red field", RED),
    ("alpha", 2.0, 4.0, "then green", GREEN),
    ("alpha", 9.0, 12.0, HOSTILE, BLUE),
    ("beta", 1.0, 3.0, "yellow", YELLOW),
    ("beta", 5.0, 6.0, "grey مرحبا", GREY),
]
FPS = 5
SIZE_PX = (64, 48)
LOSSES = [
    ("LVLT", "build", "rejected", "media_missing", "no file <b>here</b>", "c1", "gamma", '{"text": "<i>x</i>"}'),
    ("SVST", "ingest", "rejected", "missing_caption", "", "", "delta", '{"Caption": null, "n": 1}'),
    ("SVST", "ingest", "rejected", "missing_caption", "", "", "delta", '{"Caption": null, "n": 2}'),
]
EXCLUDED = [("LVLT", "plan", "excluded", "too_few_clips", "", f"e{n}", "epsilon", "") for n in range(5)]
SCORES = {"rouge1": (0.25, 0.75), "sentence_cosine": (0.6, 0.9), "bertscore_f1": (0.8, 0.8)}


def write_video(path: Path, pieces: list[tuple[float, tuple[int, int, int]]]) -> Path:
    """Colours one after the other, each for so many seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height = SIZE_PX
        stream.pix_fmt = "yuv420p"
        for duration_s, colour in pieces:
            picture = np.full((SIZE_PX[1], SIZE_PX[0], 3), colour, dtype=np.uint8)
            for _ in range(round(duration_s * FPS)):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def clip_id(index: int) -> str:
    return f"{index:032x}"


def joined_samples() -> list[tuple[SampleRecord, list[int]]]:
    """One LVLT sample a source, with the indices of its clips."""
    samples = []
    for source in ("alpha", "beta"):
        members = [index for index, clip in enumerate(CLIPS) if clip[0] == source]
        segments, offset_s = [], 0.0
        for index in members:
            _, start_s, end_s, text, _ = CLIPS[index]
            segments.append(Segment(clip_id(index), source, offset_s, end_s - start_s, start_s, end_s, text))
            offset_s += end_s - start_s
        parents = tuple(clip_id(index) for index in members)
        record = SampleRecord(
            key=make_key("LVLT", list(parents)),
            granularity="LVLT",
            source_id=source,
            parents=parents,
            segments=tuple(segments),
            text=". ".join(CLIPS[index][3] for index in members) + ".",
            duration_s=offset_s,
            width_px=SIZE_PX[0],
            height_px=SIZE_PX[1],
            fps=FPS,
            codec="h264",
            made_by="copy" if source == "alpha" else "encode",
        )
        samples.append((record, members))
    return samples


def summary_of(parent: SampleRecord, scores: dict[str, float]) -> SampleRecord:
    return replace(
        parent,
        key=make_key("LVST", [parent.key]),
        granularity="LVST",
        parents=(parent.key,),
        text=f"Colours of {parent.source_id} follow.",
        source_text_digest=text_digest(parent.text),
        scores=scores,
        made_by="embed",
    )


Media = bytes | tuple[bytes, ...]  # a file, or the frames in its place


def write_shard(output: Path, name: str, samples: list[tuple[SampleRecord, Media]], number: int = 0) -> ShardEntry:
    """One shard with its receipt; a record that has a media place keeps it and embeds nothing."""
    folder = output / name
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name}-{number:06d}"
    records = []
    with ShardWriter(folder / f"{stem}.tar") as writer:
        for sample, media in sorted(samples, key=lambda item: item[0].key):
            record = sample
            if sample.media_uri is None:
                if isinstance(media, bytes):
                    span = writer.add_bytes(f"{record.key}.{record.media_extension}", media)
                else:
                    span = writer.add_run(record.key, media)
                place = {"media_uri": f"{name}/{stem}.tar", "media_offset_bytes": span.offset_bytes}
                record = replace(record, **place, media_size_bytes=span.size_bytes)
            writer.add_bytes(f"{record.key}.txt", record.text.encode())
            writer.add_bytes(f"{record.key}.json", record.to_json("recipe"))
            records.append(record)
    receipt = Receipt(name, number, "plan", "recipe", len(records), writer.num_bytes, writer.sha256)
    write_receipt(str(folder / f"{stem}.parquet"), receipt, records)
    return ShardEntry(f"{name}/{stem}.tar", f"{name}/{stem}.parquet", len(records), writer.num_bytes, writer.sha256)


def write_rows(output: Path, name: str, rows: list[dict[str, Any]]) -> str:
    write_table(str(output / "tables" / f"{name}.parquet"), pa.Table.from_pylist(rows), {})
    return f"tables/{name}.parquet"


def write_losses(output: Path, name: str, losses: list[tuple[str, ...]]) -> str:
    rows = [dict(zip(LOSS_SCHEMA.names, loss, strict=True)) for loss in losses]
    write_table(str(output / "tables" / f"{name}.parquet"), pa.Table.from_pylist(rows, LOSS_SCHEMA), {})
    return f"tables/{name}.parquet"


def write_clips(output: Path, snapshot: int = 0) -> str:
    rows = [
        {
            "clip_id": clip_id(index),
            "source_id": source,
            "start_s": start_s,
            "end_s": end_s,
            "text": text,
            "num_words": len(text.split()),
            "Caption": text,
        }
        for index, (source, start_s, end_s, text, _) in enumerate(CLIPS)
    ]
    return write_rows(output, f"clips-{snapshot:06d}", rows)


def write_summaries(output: Path, records: list[SampleRecord]) -> list[str]:
    """The tables ``summaries-LVST`` and ``scores-LVST``, with one rejected sample's score."""
    summaries = [
        {
            "key": record.key,
            "parent_id": record.parents[0],
            "text": record.text,
            "source_digest": record.source_text_digest,
            "backend": "extractive",
            "attempts": 1,
            "scores": json.dumps(record.scores),
            "fallback_reason": None,
        }
        for record in records
    ]
    scores = [
        {"key": record.key, "state": "accepted", "score": name, "value": value}
        for record in records
        for name, value in record.scores.items()
    ]
    scores.append({"key": "f" * 32, "state": "rejected", "score": "sentence_cosine", "value": 0.2})
    return [
        write_rows(output, "summaries-LVST-000000", summaries),
        write_rows(output, "scores-LVST-000000", scores),
    ]


def entry(name: str, operation: str, parent: str | None, shard: ShardEntry, extension: str = "mp4") -> GranularityEntry:
    return GranularityEntry(operation, parent, extension, (shard,), {"samples": shard.num_samples})


def image_samples(folder: Path) -> list[tuple[SampleRecord, bytes]]:
    """Θ_v of every clip."""
    made = []
    for index, (source, start_s, end_s, text, colour) in enumerate(CLIPS):
        video = write_video(folder / f"clip{index}.mp4", [(end_s - start_s, colour)])
        content, width_px, height_px = middle_frame_jpeg(video, VideoSettings())
        segment = Segment(clip_id(index), source, 0.0, 0.0, start_s, end_s, text)
        key = make_key("IT", [clip_id(index)])
        record = SampleRecord(
            key, "IT", source, (clip_id(index),), (segment,), text, 0.0, width_px, height_px, 0.0, "jpeg", "frame",
            media_extension="jpg",
        )  # fmt: skip
        made.append((record, content))
    return made


def make_output(folder: Path, *, summaries: bool = True, images: bool = True) -> str:
    """Publish one snapshot below `folder`; returns the output's URI."""
    output, scratch = folder / "out", folder / "scratch"
    scratch.mkdir(parents=True)
    long_samples = [
        (record, write_video(scratch / f"{record.key}.mp4", _pieces(members)).read_bytes())
        for record, members in joined_samples()
    ]
    tables = [
        write_clips(output),
        write_losses(output, "rejects-000000", LOSSES),
        write_losses(output, "excluded-LVLT-000000", EXCLUDED),
    ]
    nodes = {"LVLT": entry("LVLT", "integrate", "SVST", write_shard(output, "LVLT", long_samples))}
    recipe: dict[str, Any] = {"SVST": {"operation": "source"}, "LVLT": {"operation": "integrate", "from": "SVST"}}
    if summaries:
        short = [
            summary_of(record, {name: pair[index] for name, pair in SCORES.items()})
            for index, (record, _) in enumerate(long_samples)
        ]
        media = [content for _, content in long_samples]
        shard = write_shard(output, "LVST", list(zip(short, media, strict=True)))
        nodes["LVST"] = entry("LVST", "compress_text", "LVLT", shard)
        tables += write_summaries(output, short)
        recipe["LVST"] = {"operation": "compress_text", "from": "LVLT", "gates": {"sentence_cosine": {"min": 0.5}}}
    if images:
        nodes["IT"] = entry("IT", "compress_video", "SVST", write_shard(output, "IT", image_samples(scratch)), "jpg")
        recipe["IT"] = {"operation": "compress_video", "from": "SVST"}
    accounts = (
        Account("ingest", "SVST", "rows", 7, 5, {}, {"missing_caption": 2}),
        Account("integrate", "LVLT", "clips", 4321, 4315, {"too_few_clips": 5}, {"media_missing": 1}),
    )
    publish(output, Manifest("Colours & <b>shapes</b>", (snapshot(0, nodes, accounts, tables, recipe),)))
    return str(output)


def _pieces(members: list[int]) -> list[tuple[float, tuple[int, int, int]]]:
    return [(CLIPS[index][2] - CLIPS[index][1], CLIPS[index][4]) for index in members]


def snapshot(
    number: int,
    nodes: dict[str, GranularityEntry],
    accounts: tuple[Account, ...],
    tables: list[str],
    recipe: dict[str, Any],
) -> Snapshot:
    return Snapshot(
        snapshot=number,
        created=f"2024-03-0{number + 1}T10:20:30+00:00",
        recipe_hash="0123456789abcdef",
        recipe={"name": "colours", "granularity": recipe},
        inputs=({"uri": "clips.jsonl", "num_bytes": 1234, "modified_s": 1.5},),
        granularities=nodes,
        accounts=accounts,
        tables=tuple(tables),
        software={"python": "3.11"},
    )


def publish(output: Path, manifest: Manifest) -> None:
    storage.publish_bytes(manifest.to_json(), str(output / "dataset.json"))
