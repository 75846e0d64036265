"""A published output of two snapshots for validation: short videos of three colours, texts whose lengths are chosen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gex_pipeline.shard_format import SampleRecord, Segment, make_key
from gex_pipeline.shards.manifest import Manifest
from tests.report import outputs

COLOURS = {"red": outputs.RED, "green": outputs.GREEN, "blue": outputs.BLUE}
WORDS = ("field", "wall", "light", "sea", "flag", "door", "hat", "car", "boat", "lamp")


def long_sample(number: int, num_words: int) -> SampleRecord:
    colour = list(COLOURS)[number % 3]
    words = " ".join(WORDS[(number + step) % len(WORDS)] for step in range(num_words - 2))
    text = f"a {colour} {words}."
    clip = f"{number:032x}"
    segment = Segment(clip, f"s{number}", 0.0, 0.8, 1.0, 1.8, text)
    return SampleRecord(
        make_key("LVLT", [clip]), "LVLT", f"s{number}", (clip,), (segment,), text, 0.8, *outputs.SIZE_PX, outputs.FPS,
        "h264", "encode",
    )  # fmt: skip


def write_snapshot(folder: Path, number: int, samples: list[SampleRecord], score: float) -> tuple:
    """The shards of one snapshot: long samples and a summary of each; the summaries' score lies around `score`."""
    videos = {
        name: outputs.write_video(folder.parent / f"{name}.mp4", [(0.8, colour)]).read_bytes()
        for name, colour in COLOURS.items()
    }
    media = [videos[sample.text.split()[1]] for sample in samples]
    short = [
        replace(
            outputs.summary_of(sample, {"rouge1": round(score + 0.01 * (index % 10), 4)}),
            text=" ".join(sample.text.split()[:3]),
        )
        for index, sample in enumerate(samples)
    ]
    long_shard = outputs.write_shard(folder, "LVLT", list(zip(samples, media, strict=True)), number)
    short_shard = outputs.write_shard(folder, "LVST", list(zip(short, media, strict=True)), number)
    nodes = {
        "LVLT": outputs.entry("LVLT", "integrate", "SVST", long_shard),
        "LVST": outputs.entry("LVST", "compress_text", "LVLT", short_shard),
    }
    recipe = {
        "SVST": {"operation": "source"},
        "LVLT": {"operation": "integrate", "from": "SVST"},
        "LVST": {"operation": "compress_text", "from": "LVLT"},
    }
    return outputs.snapshot(number, nodes, (), [], recipe)


def publish_two(folder: Path, num: int, later_words: int, later_score: float) -> Path:
    """`num` samples of about 20 words with scores around 0.6, then as many with `later_words` and `later_score`."""
    output = folder / "output"
    first = [long_sample(number, 16 + number % 9) for number in range(num)]
    later = [long_sample(num + number, later_words - 4 + number % 9) for number in range(num)]
    snapshots = (
        write_snapshot(output, 0, first, 0.55),
        write_snapshot(output, 1, later, later_score - 0.05),
    )
    outputs.publish(output, Manifest("colours", snapshots))
    return output


def publish_summaries_of_clips(folder: Path, num: int) -> Path:
    """A summary of each clip of a packed source: nothing of it is long. Their CLIP scores are stored."""
    output = folder / "output"
    media = outputs.write_video(folder / "red.mp4", [(0.8, outputs.RED)]).read_bytes()
    clips = [long_sample(number, 16 + number % 9) for number in range(num)]
    clips = [replace(one, key=make_key("SVST", [one.key]), granularity="SVST") for one in clips]
    scores = {"clip_text_cosine": 0.75, "clip_video_short_text": 0.25}
    tags = [
        replace(outputs.summary_of(one, scores), key=make_key("TAG", [one.key]), granularity="TAG") for one in clips
    ]
    shards = {
        name: outputs.write_shard(output, name, [(one, media) for one in made])
        for name, made in (("SVST", clips), ("TAG", tags))
    }
    nodes = {
        "SVST": outputs.entry("SVST", "source", None, shards["SVST"]),
        "TAG": outputs.entry("TAG", "compress_text", "SVST", shards["TAG"]),
    }
    rows = [
        {"key": one.key, "state": "accepted", "score": name, "value": value}
        for one in tags
        for name, value in scores.items()
    ]
    tables = [outputs.write_rows(output, "scores-TAG-000000", rows)]
    recipe = {"SVST": {"operation": "source"}, "TAG": {"operation": "compress_text", "from": "SVST"}}
    outputs.publish(output, Manifest("clips", (outputs.snapshot(0, nodes, (), tables, recipe),)))
    return output
