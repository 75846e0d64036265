"""An output of several hundred samples without tars: receipts and a manifest, with many equal values among them."""

from __future__ import annotations

import random
from pathlib import Path

from gex_pipeline.receipts import write_receipt
from gex_pipeline.shard_format import Receipt, SampleRecord, Segment, make_key
from gex_pipeline.shards.manifest import GranularityEntry, Manifest, ShardEntry
from tests.report.outputs import publish, snapshot

WORDS = ("a", "red", "Dog", "runs", "over", "Grass", "100%", "<b>bold</b>", "über", "under_score")
NUM = 330  # of each granularity: more than five pages
PER_SHARD = 70
OF_MANY = "0-7"  # the parent of samples of many segments


def make_output(output: Path) -> list[tuple[int, SampleRecord]]:
    """Publish two snapshots; returns every sample with the number of its snapshot."""
    chance = random.Random(5)
    made: list[tuple[int, SampleRecord]] = []
    snapshots = []
    for number, names in enumerate((("LVLT", "IT"), ("LVLT",))):
        nodes = {}
        for name in names:
            records = [record_of(name, f"{number}-{index}", chance) for index in range(NUM)]
            made += [(number, record) for record in records]
            shards = [
                write_shard(output, name, number * 100 + start // PER_SHARD, records[start : start + PER_SHARD])
                for start in range(0, NUM, PER_SHARD)
            ]
            nodes[name] = GranularityEntry("integrate", "SVST", "mp4", tuple(shards), {"samples": NUM})
        snapshots.append(snapshot(number, nodes, (), [], {"LVLT": {}, "IT": {}}))
    publish(output, Manifest("crowd", tuple(snapshots)))
    return made


def record_of(name: str, parent: str, chance: random.Random) -> SampleRecord:
    scores = {}
    if chance.random() < 0.8:
        scores["rouge1"] = chance.choice((0.1, 0.25, 0.25, 1 / 3, 0.9))
    if chance.random() < 0.5:
        scores["odd/name.~"] = chance.uniform(-1, 1)
    return SampleRecord(
        key=make_key(name, [parent]),
        granularity=name,
        source_id=f"source {chance.randrange(40)}",
        parents=(parent, f"shared {chance.randrange(30)}"),
        segments=segments_of(parent) if parent == OF_MANY else (),
        text=" ".join(chance.choice(WORDS) for _ in range(chance.randrange(1, 6))),
        duration_s=0.0 if name == "IT" else chance.choice((1.0, 2.5, 2.5, 7.25)),
        width_px=64,
        height_px=48,
        fps=0.0 if name == "IT" else 5.0,
        codec="jpeg" if name == "IT" else "h264",
        made_by="frame" if name == "IT" else "copy",
        scores=scores,
        media_extension="jpg" if name == "IT" else "mp4",
    )


def segments_of(parent: str) -> tuple[Segment, ...]:
    """As many as no line has pixels to put gaps between."""
    return tuple(Segment(f"{parent}-{n}", "source", n * 0.01, 0.01, n * 1.0, n + 1.0, f"part {n}") for n in range(150))


def write_shard(output: Path, name: str, number: int, records: list[SampleRecord]) -> ShardEntry:
    stem = f"{name}/{name}-{number:06d}"
    receipt = Receipt(name, number, "plan", "recipe", len(records), 10, "0" * 64)
    (output / name).mkdir(parents=True, exist_ok=True)
    write_receipt(str(output / f"{stem}.parquet"), receipt, records)
    return ShardEntry(f"{stem}.tar", f"{stem}.parquet", len(records), 10, "0" * 64)
