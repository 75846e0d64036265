"""Metadata of every kind of damage: each row ends as the documents say, and nothing else is touched by it.

GEX_EXAMPLES=2000 looks through more tables than CI does.
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from gex_pipeline import ingest
from gex_pipeline.errors import GexError
from gex_pipeline.planning import plan_node, view_clips
from gex_pipeline.run_state import open_run
from gex_pipeline.tables import Database
from tests.faults.damaging_metadata import Table, judge, tables, write
from tests.making_runs import clip_row, plan, recipe_of, run_ingest

EXAMPLES = int(os.environ.get("GEX_EXAMPLES", "50"))
HEADER = "YoutubeID,Start_timestamp,End_timestamp,Caption"


def look(table: Table) -> tuple[Any, list[dict], list[dict], list[dict]]:
    """The account, clips, losses and plan of a table."""
    with tempfile.TemporaryDirectory() as name, Database(threads=1) as database:
        folder = Path(name)
        write(folder, table)
        run = open_run(recipe_of(folder, {"clips": f"clips-*.{table.kind}"}))
        found = ingest.ingest(database, run)
        clips = database.query("SELECT * FROM clips_new ORDER BY clip_id")
        losses = database.query("SELECT * FROM ingest_losses")
        view_clips(database, run)
        planned = plan_node(database, run, run.recipe.graph.nodes["LVLT"])
        rows = database.query("SELECT shard, key, position, id, start_s, end_s, text FROM plan ORDER BY key, position")
        assert planned.num_parents == len(clips) == planned.num_members + sum(planned.left_out.values())
    return found.account, clips, losses, rows


def expected_of(table: Table) -> tuple[dict[tuple, list[tuple[str, str]]], dict[str, str]]:
    """What the documents say: clip -> rows that describe it, least text first; and row -> reason of the others."""
    verdicts = {row["n"]: judge(row, table.kind) for row in table.rows}
    clips = defaultdict(list)
    for number, verdict in verdicts.items():
        if verdict.reason is None:
            clips[verdict.clip].append((verdict.text, number))
    for rows in clips.values():
        rows.sort(key=lambda row: row[0].encode())
    return clips, {number: verdict.reason for number, verdict in verdicts.items() if verdict.reason}


@settings(max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, suppress_health_check=HealthCheck)
@given(tables())
def test_every_row_ends_as_the_documents_say_and_its_neighbours_are_unharmed(table):
    account, clips, losses, plan = look(table)
    wanted, reasons = expected_of(table)
    assert account.num_in == len(table.rows) + len(table.bad_lines)
    assert account.num_in == account.num_used + sum(account.rejected.values())
    assert len(clips) == len({clip["clip_id"] for clip in clips}) == account.num_used == len(wanted)
    for clip in clips:
        rows = wanted[clip["source_id"], round(clip["start_s"] * 1000), round(clip["end_s"] * 1000)]
        assert clip["text"] == rows[0][0]
        assert clip["n"] in [number for text, number in rows if text == rows[0][0]]
        assert clip["num_words"] == len(clip["text"].split(" "))
    kept = {clip["n"] for clip in clips}
    for rows in wanted.values():
        reasons |= {number: "duplicate_clip" for _, number in rows if number not in kept}
    check_losses(table, losses, reasons)
    good = tuple(row for row in table.rows if reasons.get(row["n"], "duplicate_clip") == "duplicate_clip")
    if good and len(good) < len(table.rows) + len(table.bad_lines):
        _, clips_alone, _, plan_alone = look(table.only(good))
        assert [comparable(clip) for clip in clips_alone] == [comparable(clip) for clip in clips]
        assert plan_alone == plan


def comparable(clip: dict) -> list[tuple]:
    """A clip without the folder it was found in."""
    return [(key, value) for key, value in clip.items() if key != "media_uri"]


def check_losses(table: Table, losses: list[dict], reasons: dict[str, str]) -> None:
    found: dict[str, str] = {}
    bad_lines = []
    for loss in losses:
        number = number_of(loss["row"])
        if number is None:
            bad_lines.append(loss)
        else:
            assert number not in found
            found[number] = loss["reason"]
    assert found == reasons
    assert Counter(loss["reason"] for loss in bad_lines) == Counter(["unreadable_row"] * len(table.bad_lines))
    places = {(loss["state"], loss["granularity"], loss["stage"]) for loss in losses}
    assert places <= {("rejected", "SVST", "ingest")}
    for loss in losses:
        if loss["reason"] == "unreadable_timestamp":
            assert loss["detail"].startswith("start ")
        if loss["reason"] == "unsafe_source_id":
            assert loss["detail"]
    if not reasons or "unreadable_row" not in reasons.values():
        assert all(f"clips-000.{table.kind} line " in loss["detail"] for loss in bad_lines)


def number_of(row: str) -> str | None:
    try:
        content = json.loads(row)
    except ValueError:
        return None
    return content.get("n") if isinstance(content, dict) else None


# --- whole files -----------------------------------------------------------------------------------------------------


def lines_of(count: int, first: int = 0) -> bytes:
    return b"".join(json.dumps(clip_row(f"v{number}")).encode() + b"\n" for number in range(first, first + count))


def parquet_of(path: Path, **columns: Any) -> bytes:
    pq.write_table(pa.table({**{key: [value] * 50 for key, value in clip_row("p").items()}, **columns}), path)
    return path.read_bytes()


def without_the_middle(content: bytes) -> bytes:
    return content[:10] + bytes(byte ^ 255 for byte in content[10:60]) + content[60:]


BROKEN = {
    "array.json": (json.dumps([clip_row("v1")], indent=1).encode(), "none of its lines is a JSON object"),
    "objects.json": (json.dumps(clip_row("v1"), indent=1).encode(), "one object a line"),
    "noise.jsonl": (bytes(range(256)) * 9, "none of its lines is a JSON object"),
    "wide.jsonl": (lines_of(3).decode().encode("utf-16"), "it is UTF-16, and metadata have to be UTF-8"),
    "wide.csv": (f"{HEADER}\nv1,0,1,x\n".encode("utf-16"), "it is UTF-16, and metadata have to be UTF-8"),
    "torn.jsonl.gz": (gzip.compress(lines_of(3000))[:-500], "Truncated compressed stream|Unexpected end"),
    "torn.csv.gz": (gzip.compress(HEADER.encode() + b"\nv1,0,1,x\n")[:-8], "Truncated compressed stream"),
    "plain.jsonl.gz": (lines_of(3), "incorrect header check|not a GZIP"),
    "nothing.csv": (b"", "it has no header line"),
    "headless.csv": (b"v1,0,1,x\nv2,0,1,y\n", "names none of the columns .* Is its header missing"),
    "short.parquet": (lambda path: parquet_of(path)[:-40], "No magic bytes found at end of file"),
    "half.parquet": (lambda path: parquet_of(path)[:400], "No magic bytes found at end of file"),
    "changed.parquet": (lambda path: without_the_middle(parquet_of(path)), "cannot read changed.parquet as parquet"),
    "nothing.parquet": (b"", "too small to be a Parquet file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_among_good_ones_stops_the_run_and_is_named(tmp_path, name):
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content(tmp_path / name) if callable(content) else content)
    (tmp_path / "a.jsonl").write_bytes(lines_of(2, 100))
    (tmp_path / "a.csv").write_text(f"{HEADER}\nw,0,1,x\n")
    parquet_of(tmp_path / "a.parquet")
    with pytest.raises(GexError, match=message) as caught:
        run_ingest(recipe_of(tmp_path, {"clips": ["a.*", name]}))
    assert str(caught.value).startswith(f"cannot read {name}")
    assert "\n" not in str(caught.value)


def test_bytes_of_a_parquet_file_that_are_not_marked_as_text_are_read_as_text(tmp_path):
    columns = {"YoutubeID": [b"v1", b"\xff"], "Start_timestamp": [0.5, 5e-05], "End_timestamp": [2, 3]}
    pq.write_table(pa.table({**columns, "Caption": ["un café".encode(), b"x"]}), tmp_path / "c.parquet")
    _, clips, losses = run_ingest(recipe_of(tmp_path, {"clips": "c.parquet"}))
    assert [(clip["source_id"], clip["text"]) for clip in clips] == [("v1", "un café")]
    assert [loss["reason"] for loss in losses] == ["missing_source_id"]


def test_times_as_numbers_may_be_nothing_or_next_to_it(tmp_path):
    starts = [0.0, 5e-05, float("nan"), float("inf"), -1.0, None, 1e300]
    columns = {"YoutubeID": [f"v{n}" for n in range(7)], "Start_timestamp": starts, "End_timestamp": [2.0] * 7}
    pq.write_table(pa.table({**columns, "Caption": ["x"] * 7}), tmp_path / "c.parquet")
    _, clips, losses = run_ingest(recipe_of(tmp_path, {"clips": "c.parquet"}))
    assert [(clip["source_id"], clip["start_s"]) for clip in clips] == [("v0", 0.0), ("v1", 0.0)]
    assert Counter(loss["reason"] for loss in losses) == {"unreadable_timestamp": 5}


@pytest.mark.parametrize("packed", [False, True])
def test_a_csv_that_ends_its_lines_in_two_ways_is_read(tmp_path, packed):
    content = f"{HEADER}\r\nv1,0,1,one\nv2,0,1\nv3,0,1,a\rb\r\nv4,0,1,four\n".encode()
    name = "c.csv.gz" if packed else "c.csv"
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    _, clips, losses = run_ingest(recipe_of(tmp_path, {"clips": name}))
    assert [(clip["source_id"], clip["text"]) for clip in clips] == [("v1", "one"), ("v3", "a b"), ("v4", "four")]
    assert [(loss["detail"].split(":")[0], loss["row"]) for loss in losses] == [("c.csv line 3", "v2,0,1")]


def test_a_quotation_mark_that_is_never_closed_is_said_with_the_lines_it_takes(tmp_path):
    (tmp_path / "c.csv").write_text(f'{HEADER}\nv1,0,1,x\nv2,0,1,"never closed\nv3,0,1,y\nv4,0,1,z\n')
    _, clips, losses = run_ingest(recipe_of(tmp_path, {"clips": "c.csv"}))
    assert [clip["source_id"] for clip in clips] == ["v1"]
    assert losses[0]["detail"].startswith("c.csv line 3: ")
    assert losses[0]["detail"].endswith(" 2 more lines lie inside its quotes.")
    assert "v4,0,1,z" in losses[0]["row"]


def test_lines_of_json_that_are_no_rows_are_told_with_file_line_and_text(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines_of(2) + b'{"YoutubeID": "torn", "Sta')
    (tmp_path / "b.jsonl").write_bytes(lines_of(1, 5) + b"[1, 2]\n{}\n" + b'{"YoutubeID": "caf\xe9"}\n')
    _, clips, losses = run_ingest(recipe_of(tmp_path, {"clips": "*.jsonl"}))
    assert len(clips) == 3
    assert sorted((loss["detail"], loss["row"]) for loss in losses) == [
        ("a.jsonl line 3: not JSON (character 23: Unterminated string starting at)", '{"YoutubeID": "torn", "Sta'),
        ("b.jsonl line 2: not an object but an array", "[1, 2]"),
        ("b.jsonl line 3: an object without a value", "{}"),
        ("b.jsonl line 4: not UTF-8", '{"YoutubeID": "caf\ufffd"}'),
    ]


@pytest.mark.parametrize("media", [{"kind": "column", "column": "file"}, {"kind": "files", "uri": "{file}"}])
def test_a_name_that_no_file_can_have_costs_its_row_and_not_the_plan(tmp_path, media):
    names = ["a" * 251 + ".mp4", "a" * 252 + ".mp4", "é" * 127 + ".mp4", "b.mp4"]
    names += ["/".join(["d" * 200] * 25)] if media["kind"] == "column" else []
    rows = [clip_row("v", number, number + 1, file=name) for number, name in enumerate(names)]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run = open_run(recipe_of(tmp_path, {"clips": "c.jsonl", "media": media}))
    plan(run, "LVLT")
    rows = pq.read_table(run.layout.table("plan-LVLT", 0)).to_pylist()
    assert sorted(row["media_uri"].rsplit("/", 1)[1] for row in rows) == [names[0], "b.mp4"]
    losses = pq.read_table(run.layout.table("losses-ingest", 0)).to_pylist()
    assert [loss["reason"] for loss in losses] == ["media_missing"] * (len(names) - 2)


def test_files_without_rows_and_with_other_columns_are_read_beside_the_rest(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"")
    (tmp_path / "b.jsonl").write_bytes(lines_of(1))
    (tmp_path / "c.csv").write_text(HEADER + "\n")
    (tmp_path / "d.csv").write_text(f"{HEADER.lower()},Extra\nw,0,1,x,5\n")
    pq.write_table(pa.table({key: pa.array([], pa.string()) for key in clip_row("x")}), tmp_path / "e.parquet")
    found, clips, losses = run_ingest(recipe_of(tmp_path, {"clips": ["*.jsonl", "*.csv", "*.parquet"]}))
    assert ([clip["source_id"] for clip in clips], losses, found.account.num_in) == (["v0", "w"], [], 2)
