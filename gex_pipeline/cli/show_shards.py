"""How shards, samples and findings look on a terminal. Texts are data: control characters are not printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from gex_pipeline.cli.show import as_json, human_bytes, human_time, say, table
from gex_pipeline.report.wording import position
from gex_pipeline.shard_format import frame_number
from gex_pipeline.shards.findings import is_of_table, is_rebuilt

if TYPE_CHECKING:
    from gex_pipeline.shards.looking import Difference

_LINE_WIDTH = 48
_TEXT_WIDTH = 100
_BLOCKS = " ▁▂▃▄▅▆▇█"
_SHOWN = 50


def plain(text: Any, width: int | None = None) -> str:
    """A text that changes nothing but the place where it is printed, cut to a width."""
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(str(text).split()))
    return shown if width is None or len(shown) <= width else f"{shown[: width - 1]}…"


def listing(rows: list[dict[str, Any]]) -> None:
    """A line a shard and one for all."""
    cells = [
        (
            plain(row["shard"]),
            "-" if row["snapshot"] is None else str(row["snapshot"]),
            f"{row['samples']:,}",
            human_bytes(row["bytes"]),
            human_time(row["duration_s"]) if row["duration_s"] else "-",
            row["state"],
        )
        for row in rows
    ]
    table(("shard", "snapshot", "samples", "bytes", "video", "state"), cells, numbers=(1, 2, 3, 4))
    total_s = sum(row["duration_s"] for row in rows)
    say(
        f"{len(rows):,} shards, {sum(row['samples'] for row in rows):,} samples, "
        f"{human_bytes(sum(row['bytes'] for row in rows))}, {human_time(total_s)} of video"
    )


def sample(row: dict[str, Any]) -> None:
    """One sample: facts, text, time line, lineage."""
    size = f"{row['width_px']}x{row['height_px']} px" if row["width_px"] else None
    rate = f"{row['fps']:g} fps" if row["fps"] else None
    facts = (size, rate, row["codec"], row["made_by"], human_bytes(row["media_size_bytes"] or 0))
    say(f"key       {plain(row['key'])}")
    say(f"shard     {plain(row['tar'])}" + (f"  (snapshot {row['snapshot']})" if row["snapshot"] is not None else ""))
    say(f"source    {plain(row['source_id']) or '-'}")
    length = human_time(row["duration_s"]) if row["duration_s"] else "-"
    say(f"media     {length}, " + ", ".join(plain(fact) for fact in facts if fact))
    if row["frames"]:
        frames = row["frames"]
        beside = f", {human_bytes(row['frames_size_bytes'])} beside the video" if row["frames_size_bytes"] else ""
        say(f"frames    {frames['num']} of {frames['width_px']}x{frames['height_px']} px{beside}")
    say(f"text      {plain(row['text'])}")
    say(f"          {row['num_words']} words")
    if row["source_text_digest"]:
        say(f"summary   of the text {plain(row['source_text_digest'])}")
    if row["scores"]:
        say("scores    " + ", ".join(f"{plain(name)} {value:.4g}" for name, value in row["scores"].items()))
    if row["segments"]:
        _time_line(row)
    if row["lineage"]:
        say("made of")
        for item in row["lineage"]:
            say(f"{'  ' * item['depth']}{_ancestor(item)}")
    say("members   " + ", ".join(_members(row["members"])))


def _members(members: list[dict[str, Any]]) -> Iterator[str]:
    """The members in their order, many frames as one."""
    for is_frame, group in groupby(members, lambda item: frame_number(item["extension"]) is not None):
        items = list(group)
        if is_frame and len(items) > 1:
            size = human_bytes(sum(item["size_bytes"] for item in items))
            yield f"{plain(items[0]['name'])} … {plain(items[-1]['extension'])} ({size})"
        else:
            yield from (f"{plain(item['name'])} ({human_bytes(item['size_bytes'])})" for item in items)


def _time_line(row: dict[str, Any]) -> None:
    scale = _LINE_WIDTH / max(row["duration_s"] or 0.0, 1e-6)
    cells = []
    for segment in row["segments"]:
        start = round(segment["offset_s"] * scale) if row["duration_s"] else 0
        width = max(1, round(segment["duration_s"] * scale)) if row["duration_s"] else _LINE_WIDTH
        line = ("·" * start + "█" * width)[:_LINE_WIDTH].ljust(_LINE_WIDTH, "·")
        place = f"{plain(segment['source_id'])} {position(segment['start_s'])}-{position(segment['end_s'])}"
        cells.append((position(segment["offset_s"]), line, place, plain(segment["text"])))
    table(("at", "segments", "from the source", "caption"), cells)


def _ancestor(item: dict[str, Any]) -> str:
    if item["kind"] == "clip":
        span = f"{position(item['start_s'])}-{position(item['end_s'])}"
        return f"clip {item['id']}  {plain(item['source_id'])} {span}  {plain(item['media_uri'])}"
    if item["kind"] == "sample":
        text = plain(item["text"], _TEXT_WIDTH)
        return f"{plain(item['granularity'])} {plain(item['id'])}  {plain(item['tar'])}  {text}"
    return f"{plain(item['id'])}  (not in this target)"


def found(content: dict[str, Any]) -> None:
    """Samples that fulfil a condition."""
    rows = content["samples"]
    cells = [
        (
            plain(row["key"]),
            plain(row["tar"]),
            human_time(row["duration_s"]) if row["duration_s"] else "-",
            str(row["num_words"]),
            plain(row["text"], _TEXT_WIDTH),
        )
        for row in rows
    ]
    table(("key", "shard", "video", "words", "text"), cells, numbers=(2, 3))
    say(f"{content['num']:,} samples" + (f", the first {len(rows)} of them here" if len(rows) < content["num"] else ""))


def statistics(content: dict[str, Any]) -> None:
    """Distributions with a small histogram each, and the kinds of media."""
    counts = {
        (name, histogram["quantity"]): bins
        for histogram in content["histograms"]
        for name, bins in histogram["counts"].items()
    }
    names = ("mean", "std", "min", "p05", "median", "p95", "max")
    cells = [
        (
            plain(row["granularity"]) or "-",
            plain(row["quantity"]),
            f"{row['num']:,}",
            *(f"{row[name]:.4g}" for name in names),
            bars(counts[(row["granularity"], row["quantity"])]),
        )
        for row in content["statistics"]
    ]
    table(("granularity", "quantity", "num", *names, "histogram"), cells, numbers=tuple(range(2, 10)))
    kinds = [
        (
            plain(row["granularity"]) or "-",
            plain(row["codec"] or "-"),
            plain(row["media_extension"] or "-"),
            f"{row['width_px']}x{row['height_px']}" if row["width_px"] else "-",
            f"{row['fps']:g}" if row["fps"] else "-",
            plain(row["made_by"] or "-"),
            f"{row['samples']:,}",
        )
        for row in content["media"]
    ]
    table(("granularity", "codec", "file", "px", "fps", "made by", "samples"), kinds, numbers=(6,))


def bars(counts: list[int]) -> str:
    """A histogram of one line."""
    highest = max(counts, default=0) or 1
    return "".join(_BLOCKS[-(-count * (len(_BLOCKS) - 1) // highest)] for count in counts)


def difference(found: Difference) -> None:
    """What two targets share and where they differ."""
    cells = [
        (
            plain(row["granularity"]) or "-",
            *(
                f"{number:,}"
                for number in (
                    *(row["in_a"], row["in_b"], row["in_both"] - row["changed"], row["changed"]),
                    *(row["in_a"] - row["in_both"], row["in_b"] - row["in_both"]),
                )
            ),
        )
        for row in found.granularities
    ]
    headings = ("granularity", "in A", "in B", "same", "changed", "only in A", "only in B")
    table(headings, cells, numbers=tuple(range(1, 7)))
    rows = [
        (plain(row["granularity"]), plain(row["key"]), row["status"], ", ".join(row["fields"]))
        for row in found.changed(_SHOWN)
    ]
    if rows:
        table(("granularity", "key", "status", "fields that differ"), rows)
        left = found.num_changed - len(rows)
        say(f"and {left:,} more; --json has them all" if left else "")
    if found.same_shards is not None:
        num_a, num_b = found.shards
        say(f"{found.same_shards:,} of {num_a:,} and {num_b:,} shards are equal to the byte")


def say_json_rows(content: dict[str, Any], name: str, rows: Iterable[dict[str, Any]]) -> None:
    """An object for a program whose member `name` is a list too long for the memory, a row a line."""
    head = as_json(content, indent=1).removesuffix("\n}")
    sys.stdout.write(f"{head},\n {json.dumps(name)}: [")
    for number, row in enumerate(rows):
        sys.stdout.write(("," if number else "") + "\n  " + as_json(row))
    sys.stdout.write("\n ]\n}\n")


def findings(content: dict[str, Any]) -> None:
    """What is wrong, then what is worth knowing."""
    rows = [
        (
            plain(row["shard"]) or "-",
            plain(row["key"]) or "-",
            ("note: " if row["is_note"] else "") + row["check"],
            plain(row["found"]),
            plain(row["expected"]),
        )
        for row in content["findings"]
    ]
    if rows:
        table(("shard", "key", "check", "found", "expected"), rows)
    verdict = f"{content['wrong']:,} things are wrong" if content["wrong"] else "nothing is wrong"
    notes = f", {content['notes']:,} notes" if content["notes"] else ""
    say(f"{content['shards']:,} shards verified: {verdict}{notes}")
    wrong = [row for row in content["findings"] if not row["is_note"]] if content["output"] else []
    if any(is_of_table(row["shard"]) for row in wrong):
        say("next     put the tables back from a copy; they are not built again")
    if any(is_rebuilt(row["shard"], row["check"]) for row in wrong):
        say(f"next     gex run {content['output']} --check-bytes    builds damaged shards again")
