"""Every input row is accepted, known, excluded or rejected; `run_ingest` asserts that in every test."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import tarfile
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from gex_pipeline import ingest, metadata_text, storage
from gex_pipeline.errors import GexError, RecipeError
from gex_pipeline.run_state import open_run
from gex_pipeline.shards.manifest import Manifest, Snapshot
from gex_pipeline.tables import Database
from tests.making_runs import clip_row, recipe_of, run_ingest, write_jsonl

HEADER = "YoutubeID,Start_timestamp,End_timestamp,Caption"


def ingest_text(folder: Path, name: str, content: str | bytes, **source):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return run_ingest(recipe_of(folder, {"clips": name, **source}))


def reasons(losses: list[dict]) -> dict[str, int]:
    found = [loss["reason"] for loss in losses]
    return {reason: found.count(reason) for reason in dict.fromkeys(found)}


# --- formats ---------------------------------------------------------------------------------------------------------


def test_csv_keeps_quotes_commas_newlines_and_the_zeros_of_ids(tmp_path):
    rows = [
        HEADER + ",Score,Note",
        '007,00:00:01.000,00:00:02.500,"a ""quoted"", red, dog",0.5,01',
        '-dash,5,6,"two\nlines",,x',
        "a.b:c,00:01:00,00:01:01,plain,1e-3,y",
    ]
    _, clips, losses = ingest_text(
        tmp_path, "c.csv", "\n".join(rows) + "\n", media={"kind": "column", "column": "Note"}
    )
    assert losses == []
    by_id = {clip["source_id"]: clip for clip in clips}
    assert set(by_id) == {"007", "-dash", "a.b:c"}
    assert by_id["007"]["text"] == 'a "quoted", red, dog'
    assert (by_id["007"]["start_s"], by_id["007"]["end_s"]) == (1.0, 2.5)
    assert by_id["007"]["media_uri"].endswith("/01")
    assert by_id["007"]["Score"] == 0.5
    assert by_id["-dash"]["text"] == "two lines"
    assert by_id["-dash"]["text_cleaned"] is True
    assert by_id["a.b:c"]["start_s"] == 60.0


def test_lines_of_a_csv_that_are_no_rows_are_rejected_with_their_text(tmp_path):
    rows = [HEADER, "v1,0,1,good", "v2,0,1", "v3,0,1,too,many,fields", "v4,0,1,good too"]
    _, clips, losses = ingest_text(tmp_path, "c.csv", "\n".join(rows) + "\n")
    assert [clip["source_id"] for clip in clips] == ["v1", "v4"]
    assert reasons(losses) == {"unreadable_row": 2}
    assert sorted(loss["row"] for loss in losses) == ["v2,0,1", "v3,0,1,too,many,fields"]
    assert sorted(loss["detail"].split(":")[0] for loss in losses) == ["c.csv line 3", "c.csv line 4"]


def test_a_csv_with_windows_line_ends_and_a_byte_order_mark_is_read(tmp_path):
    content = b"\xef\xbb\xbf" + f"{HEADER}\r\nv1,0,1,a dog\r\nv2,0,1,a cat\r\n".encode()
    _, clips, losses = ingest_text(tmp_path, "c.csv", content)
    assert [clip["text"] for clip in clips] == ["a dog", "a cat"]
    assert losses == []


def test_bytes_of_a_csv_that_are_no_utf8_cost_their_row_only(tmp_path):
    content = f"{HEADER}\nv1,0,1,good\n".encode() + b"v2,0,1,caf\xe9\n" + b"v3,0,1,good\n"
    found, clips, _ = ingest_text(tmp_path, "c.csv", content)
    assert [clip["source_id"] for clip in clips] == ["v1", "v3"]
    assert found.account.rejected == {"unreadable_row": 1}


def test_a_csv_with_a_header_and_no_rows_is_no_clips(tmp_path):
    found, clips, losses = ingest_text(tmp_path, "c.csv", HEADER + "\n")
    assert (found.account.num_in, clips, losses) == (0, [], [])


def test_tab_separated_values_may_hold_commas(tmp_path):
    content = HEADER.replace(",", "\t") + "\nv1\t0\t1\ta red, big dog\n"
    _, clips, _ = ingest_text(tmp_path, "c.tsv", content)
    assert clips[0]["text"] == "a red, big dog"


def test_json_lines_keep_times_and_ids_as_they_are_written(tmp_path):
    rows = [
        clip_row("007", "00:00:01.000", "00:00:02.000", "a dog", Day="2024-01-02", When="00:00:05", Tags=["a", "b"]),
        clip_row(12, 3, 4.5, "numbers"),
    ]
    write_jsonl(tmp_path / "clips.jsonl", rows)
    _, clips, losses = run_ingest(recipe_of(tmp_path))
    assert losses == []
    assert [(clip["source_id"], clip["start_s"], clip["end_s"]) for clip in clips] == [("007", 1, 2), ("12", 3, 4.5)]
    assert clips[0]["Start_timestamp"] == "00:00:01.000"
    assert clips[0]["media_uri"].endswith("clips/007-00:00:01.000.mp4")
    assert str(clips[0]["Day"]) == "2024-01-02"
    assert clips[0]["Tags"] == ["a", "b"]


def test_lines_that_are_no_json_are_rejected_and_the_others_read(tmp_path):
    good = [json.dumps(clip_row(f"v{number}")) for number in range(3)]
    lines = [good[0], '{"YoutubeID": "x", "Start', "not json", good[1], "[1, 2]", "", good[2]]
    found, clips, losses = ingest_text(tmp_path, "clips.jsonl", "\n".join(lines) + "\n")
    assert [clip["source_id"] for clip in clips] == ["v0", "v1", "v2"]
    assert reasons(losses) == {"unreadable_row": 3}
    assert found.account.num_in == 6


@pytest.mark.parametrize("other", ["csv", "parquet"])
def test_lines_that_are_no_json_are_named_also_beside_files_of_another_format(tmp_path, other):
    (tmp_path / "a.jsonl").write_text(json.dumps(clip_row("v1")) + '\n{"YoutubeID": "broken\n')
    table = pa.table({name: [value] for name, value in zip(HEADER.split(","), ("v2", "0", "1", "a cat"), strict=True)})
    write = {"csv": pyarrow.csv.write_csv, "parquet": pq.write_table}[other]
    write(table, tmp_path / f"b.{other}")
    _, clips, losses = run_ingest(recipe_of(tmp_path, {"clips": ["a.jsonl", f"b.{other}"]}))
    assert [clip["source_id"] for clip in clips] == ["v1", "v2"]
    assert [(loss["reason"], loss["row"]) for loss in losses] == [("unreadable_row", '{"YoutubeID": "broken')]
    assert losses[0]["detail"].startswith("a.jsonl line 2: not JSON")


def test_where_a_row_of_nothing_may_be_of_another_format_no_line_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(clip_row("v1")) + '\n{"YoutubeID": "broken\n')
    pq.write_table(
        pa.table({name: pa.array([None], pa.string()) for name in HEADER.split(",")}), tmp_path / "b.parquet"
    )
    _, _, losses = run_ingest(recipe_of(tmp_path, {"clips": ["a.jsonl", "b.parquet"]}))
    assert [(loss["reason"], loss["detail"]) for loss in losses] == [("unreadable_row", "")] * 2


def test_json_lines_may_lack_columns(tmp_path):
    rows = [clip_row("v1"), {"YoutubeID": "v2", "Start_timestamp": 1, "End_timestamp": 2}, {"Caption": "x"}]
    write_jsonl(tmp_path / "clips.jsonl", rows)
    _, clips, losses = run_ingest(recipe_of(tmp_path))
    assert [clip["source_id"] for clip in clips] == ["v1"]
    assert reasons(losses) == {"missing_caption": 1, "missing_source_id": 1}
    assert json.loads(losses[0]["row"])["YoutubeID"] == "v2"


def test_parquet_keeps_types_and_ids(tmp_path):
    table = pa.table(
        {
            "YoutubeID": ["007", "b"],
            "Start_timestamp": ["00:00:01", "2"],
            "End_timestamp": [2.5, 3.0],
            "Caption": ["one", "two"],
            "UMT_Score": pa.array([0.5, None], pa.float32()),
        }
    )
    pq.write_table(table, tmp_path / "c.parquet")
    _, clips, losses = run_ingest(recipe_of(tmp_path, {"clips": "c.parquet"}))
    assert losses == []
    assert [(clip["source_id"], clip["end_s"], clip["UMT_Score"]) for clip in clips] == [
        ("007", 2.5, 0.5),
        ("b", 3.0, None),
    ]


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_compressed_metadata_are_read(tmp_path, ending):
    content = f"{HEADER}\nv1,0,1,a dog\n".encode()
    packed = gzip.compress(content) if ending == "gz" else pa.Codec("zstd").compress(content, asbytes=True)
    _, clips, _ = ingest_text(tmp_path, f"c.csv.{ending}", packed)
    assert [clip["source_id"] for clip in clips] == ["v1"]
    lines = (json.dumps(clip_row("v2")) + "\n").encode()
    packed = gzip.compress(lines) if ending == "gz" else pa.Codec("zstd").compress(lines, asbytes=True)
    _, clips, _ = ingest_text(tmp_path, f"c.jsonl.{ending}", packed)
    assert [clip["source_id"] for clip in clips] == ["v2"]


def test_files_of_several_formats_and_columns_are_one_collection(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m/a.csv").write_text(f"{HEADER}\nv1,0,1,one\nbroken\n")
    (tmp_path / "m/b.csv").write_text(f"{HEADER},More\nv2,0,1,two,x\n")
    (tmp_path / "m/c.tsv").write_text(HEADER.replace(",", "\t") + "\nv3\t0\t1\tthree, and more\n")
    write_jsonl(tmp_path / "m/d.jsonl", [clip_row("v4", More=5)])
    pq.write_table(pa.table({key: [value] for key, value in clip_row("v5").items()}), tmp_path / "m/e.parquet")
    found, clips, losses = run_ingest(recipe_of(tmp_path, {"clips": ["m/*.csv", "m/*.tsv", "m/[de].*"]}))
    assert [clip["source_id"] for clip in clips] == ["v1", "v2", "v3", "v4", "v5"]
    assert clips[2]["text"] == "three, and more"
    assert found.account.num_in == 6
    assert [loss["row"] for loss in losses] == ["broken"]


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("c.txt", b"x", RecipeError, "c.txt' is none of .parquet, .csv"),
        ("c.parquet", b"not parquet at all", GexError, "cannot read c.parquet as parquet"),
        ("c.csv.gz", b"not gzip", GexError, "cannot read c.csv.gz as csv"),
        ("c.csv.bz2", bz2.compress(b"x"), RecipeError, "c.csv.bz2' is none of"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content, error, message):
    with pytest.raises(error, match=message):
        ingest_text(tmp_path, name, content)


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_a_metadata_file_is_the_file_of_that_name_and_its_folder_is_no_column(tmp_path, ending):
    """DuckDB took ``Caption=pwned`` for the caption of all rows, and ``clips-?`` for every file of that form."""
    folder = tmp_path / "Caption=pwned"
    folder.mkdir()
    for name in ("clips-1", "clips-?"):
        row = clip_row(f"v{name[-1]}".replace("?", "2"), Caption="a dog")
        if ending == "parquet":
            pq.write_table(pa.table({key: [value] for key, value in row.items()}), folder / f"{name}.parquet")
        elif ending in ("csv", "tsv"):
            lines = [HEADER.split(","), [str(row[column]) for column in HEADER.split(",")]]
            text = "\n".join({"csv": ",", "tsv": "\t"}[ending].join(line) for line in lines) + "\n"
            (folder / f"{name}.{ending}").write_text(text)
        else:
            write_jsonl(folder / f"{name}.{ending}", [row])
    _, clips, losses = run_ingest(recipe_of(tmp_path, {"clips": f"Caption=pwned/clips-?.{ending}"}))
    assert [(clip["source_id"], clip["text"]) for clip in clips] == [("v2", "a dog")]
    assert losses == []


@pytest.mark.parametrize(
    ("name", "what"),
    [("c.jsonl.gz", "line 1 is longer than 16777216 bytes"), ("c.csv.gz", "a line of its header is longer than 1048")],
)
def test_a_line_that_would_fill_the_memory_is_read_no_further_than_a_line_may_be_long(tmp_path, name, what):
    """One of 300 MB in a file of 292 kB took 1.6 GB, before the same was said."""
    content = b'{"YoutubeID": "' + b"a" * 17_000_000 + b'"}\n' + json.dumps(clip_row("v1")).encode()
    with pytest.raises(GexError, match=f"cannot read {name}.*{what}"):
        ingest_text(tmp_path, name, gzip.compress(content, 1))


def test_json_lines_of_hundreds_of_columns_are_no_map(tmp_path):
    """From 200 columns of one type on DuckDB made one of all of them, and none had the names of the recipe."""
    rows = [clip_row(f"v{number}", **{f"c{column}": "x" for column in range(250)}) for number in range(2)]
    write_jsonl(tmp_path / "c.jsonl", [{name: str(value) for name, value in row.items()} for row in rows])
    _, clips, losses = run_ingest(recipe_of(tmp_path, {"clips": "c.jsonl"}))
    assert [(clip["source_id"], clip["c249"]) for clip in clips] == [("v0", "x"), ("v1", "x")]
    assert losses == []


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_more_columns_than_a_table_has_are_refused(tmp_path, ending):
    """DuckDB took ten seconds for 20,000 of them, and all its memory for 30,000."""
    names = [*HEADER.split(","), *(f"c{number}" for number in range(4997))]
    content = ",".join(names) + "\n" if ending == "csv" else json.dumps(dict.fromkeys(names, "1"))
    with pytest.raises(GexError, match=rf"cannot read c\.{ending} as .*: 5001 columns; at most 5000 are read"):
        ingest_text(tmp_path, f"c.{ending}", content)


def test_carriage_returns_without_end_are_read_piece_by_piece(monkeypatch):
    """A piece grew by one byte at a time as long as there were more of them."""
    monkeypatch.setattr(metadata_text, "_CHUNK_BYTES", 10)
    for content in (b"\r" * 1000, b"a\r\n" * 333, b"\r", b"", b"ab\r\n" + b"\r" * 6 + b"\n"):
        pieces = list(metadata_text._whole_ends(io.BytesIO(content)))
        assert b"".join(pieces) == content
        assert max(map(len, pieces), default=0) <= 11
        assert not any(b.startswith(b"\n") for a, b in pairwise(pieces) if a.endswith(b"\r"))


def test_metadata_of_all_folders_are_read_and_what_a_mac_leaves_beside_them_is_not(tmp_path):
    for number, place in enumerate(("x", "en/x", "en/a/x")):
        write_jsonl(tmp_path / f"clips/{place}.jsonl", [clip_row(f"v{number}")])
    (tmp_path / "clips/en/._x.jsonl").write_bytes(b"\x00\x05\x16\x07\x00Mac OS X")
    _, clips, losses = run_ingest(recipe_of(tmp_path, {"clips": "clips/**/*.jsonl"}))
    assert [clip["source_id"] for clip in clips] == ["v0", "v1", "v2"]
    assert losses == []


# --- columns ---------------------------------------------------------------------------------------------------------


def test_columns_with_other_names_are_mapped(tmp_path):
    content = "video,from,to,a text\nv1,1,2,a dog\n"
    columns = {"source_id": "video", "start": "from", "end": "to", "caption": "a text"}
    media = {"kind": "files", "uri": "clips/{video}.mp4"}
    _, clips, _ = ingest_text(tmp_path, "c.csv", content, columns=columns, media=media)
    assert (clips[0]["source_id"], clips[0]["text"], clips[0]["media_uri"]) == (
        "v1",
        "a dog",
        f"{tmp_path}/clips/v1.mp4",
    )
    assert clips[0]["video"] == "v1"


def test_a_column_that_is_not_there_is_said_with_those_that_are(tmp_path):
    with pytest.raises(
        RecipeError,
        match=r"source.columns.caption: the metadata has no column 'Caption'; it has: "
        "YoutubeID, Start_timestamp, End_timestamp, Text.*caption = ",
    ):
        ingest_text(tmp_path, "c.csv", HEADER.replace("Caption", "Text") + "\nv1,0,1,x\n")


def test_columns_with_our_names_are_kept_beside_ours(tmp_path):
    rows = [clip_row("v1", text="mine", source_id="mine too", input_text="third", Media_URI="4", reason="fifth")]
    write_jsonl(tmp_path / "clips.jsonl", rows)
    _, clips, _ = run_ingest(recipe_of(tmp_path))
    clip = clips[0]
    assert (clip["text"], clip["source_id"]) == ("a dog runs", "v1")
    assert clip["input_source_id"] == "mine too"
    assert clip["input_Media_URI"] == "4"
    assert clip["reason"] == "fifth"
    assert {"mine", "third"} <= set(map(str, clip.values())), "no input column is dropped"


def test_a_column_may_have_any_name(tmp_path):
    rows = [clip_row("v1", **{'it\'s "x", ok': 1, "a b": 2, "select": 3})]
    write_jsonl(tmp_path / "clips.jsonl", rows)
    _, clips, _ = run_ingest(recipe_of(tmp_path, {"where": '"a b" = 2'}))
    assert (clips[0]['it\'s "x", ok'], clips[0]["a b"], clips[0]["select"]) == (1, 2, 3)


# --- where -----------------------------------------------------------------------------------------------------------


def test_rows_that_fail_the_predicate_are_excluded_also_when_it_is_unknown(tmp_path):
    rows = [clip_row("v1", UMT_Score=0.5), clip_row("v2", UMT_Score=0.1), clip_row("v3", UMT_Score=None)]
    write_jsonl(tmp_path / "clips.jsonl", rows)
    found, clips, losses = run_ingest(recipe_of(tmp_path, {"where": "UMT_Score > 0.3 -- good ones"}))
    assert [clip["source_id"] for clip in clips] == ["v1"]
    assert found.account.excluded == {"filtered_by_where": 2}
    assert {loss["state"] for loss in losses} == {"excluded"}


@pytest.mark.parametrize(
    "where",
    ["Score > 1", "getenv('HOME') = 'x'", "count(*) > 1", "Caption", "Caption > 5", "true; DROP TABLE x", "error('x')"],
)
def test_a_predicate_that_does_not_fit_the_metadata_is_an_error_of_the_recipe(tmp_path, where):
    write_jsonl(tmp_path / "clips.jsonl", [clip_row("v1")])
    with pytest.raises(RecipeError):
        run_ingest(recipe_of(tmp_path, {"where": where}))


# --- media -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "colon", "expected"),
    [
        ("clips/{YoutubeID}_{Start_timestamp}.mp4", ":", "clips/v1_00:00:01.500.mp4"),
        ("clips/{YoutubeID}_{Start_timestamp}.mp4", "-", "clips/v1_00-00-01.500.mp4"),
        ("clips/{YoutubeID}_{Start_timestamp}.mp4", "_", "clips/v1_00_00_01.500.mp4"),
        ("clips/{YoutubeID}_{start_s}_{end_s}.mp4", ":", "clips/v1_1.500_62.000.mp4"),
        ("clips/{{x}}/{number}.mp4", ":", "clips/{x}/0012.mp4"),
        ("it's/{YoutubeID}.mp4", ":", "it's/v1.mp4"),
    ],
)
def test_a_template_finds_a_clips_file(tmp_path, uri, colon, expected):
    content = f"{HEADER},number\nv1,00:00:01.500,00:01:02,x,0012\n"
    _, clips, _ = ingest_text(tmp_path, "c.csv", content, media={"kind": "files", "uri": uri, "colon": colon})
    assert clips[0]["media_uri"] == f"{tmp_path}/{expected}"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (
            "{nothing}.mp4",
            "source.media: {nothing} is not a column of the metadata; there are: YoutubeID, .*, start_s, end_s",
        ),
        ("{}.mp4", "source.media: {} is not a column"),
        ("{YoutubeID.mp4", "source.media: the template .*{YoutubeID.mp4"),
        ("YoutubeID}.mp4", "source.media: .*YoutubeID}.mp4"),
        (
            "{start_s:.0f}_{end_s}.mp4",
            r"source.media: the field {start_s:.0f} .* say {start_s}.* decimals, as in 1.500",
        ),
        ("{YoutubeID}_{end_s:07.1f}.mp4", r"source.media: the field {end_s:07.1f} .* say {end_s}"),
        ("{YoutubeID!r:>12}.mp4", r"source.media: the field {YoutubeID!r:>12} .* say {YoutubeID}"),
        ("{YoutubeID!s}.mp4", r"source.media: the field {YoutubeID!s} .* say {YoutubeID}"),
    ],
)
def test_a_template_that_means_nothing_is_an_error_of_the_recipe(tmp_path, uri, message):
    write_jsonl(tmp_path / "clips.jsonl", [clip_row("v1")])
    with pytest.raises(RecipeError, match=message):
        run_ingest(recipe_of(tmp_path, {"media": {"kind": "files", "uri": uri}}))


def test_a_clips_file_can_be_named_in_a_column_below_a_root(tmp_path):
    rows = [clip_row(f"v{number}", file=file) for number, file in enumerate(["a.mp4", "x/y z.mp4", "a..b.mp4", None])]
    write_jsonl(tmp_path / "clips.jsonl", rows)
    media = {"kind": "column", "column": "file", "root": "s3://bucket/clips/"}
    _found, clips, losses = run_ingest(recipe_of(tmp_path, {"media": media}))
    assert [clip["media_uri"] for clip in clips] == [
        f"s3://bucket/clips/{name}" for name in ("a.mp4", "x/y z.mp4", "a..b.mp4")
    ]
    assert reasons(losses) == {"media_missing": 1}


@pytest.mark.parametrize(
    "file", ["../x.mp4", "/etc/passwd", "a/../../b", "..", "a/..", "s3://other/x", "a\\..\\b", "a\nb", "a\x9bm.mp4", ""]
)
def test_a_column_cannot_lead_out_of_its_root(tmp_path, file):
    write_jsonl(tmp_path / "clips.jsonl", [clip_row("v1", file=file), clip_row("v2", file="ok.mp4")])
    _, clips, losses = run_ingest(recipe_of(tmp_path, {"media": {"kind": "column", "column": "file"}}))
    assert [clip["source_id"] for clip in clips] == ["v2"]
    assert [loss["reason"] for loss in losses] == ["media_missing" if file == "" else "unsafe_media_path"]


@pytest.mark.parametrize("value", ["../x", "a/b", "..", ".", "/etc", "a\\b", "a\nb", "a\x7fb", "a\x9bb", "a\u2028b"])
def test_a_value_in_a_template_cannot_lead_out(tmp_path, value):
    write_jsonl(tmp_path / "clips.jsonl", [clip_row("v1", name=value)])
    _, clips, losses = run_ingest(recipe_of(tmp_path, {"media": {"kind": "files", "uri": "clips/{name}"}}))
    assert clips == []
    assert [loss["reason"] for loss in losses] == ["unsafe_media_path"]


def test_control_characters_of_any_kind_are_in_no_source_id_and_marks_of_direction_are(tmp_path):
    """U+009B begins an escape for terminals as ESC [ does, and passed."""
    ids = ["a\x1bb", "a\x7fb", "a\x9b31mb", "a\u2028b", "a\u2029b", "می\u200cکنیم", "שלום\u200e1"]
    write_jsonl(tmp_path / "clips.jsonl", [clip_row(name) for name in ids])
    _, clips, losses = run_ingest(recipe_of(tmp_path, {}))
    assert sorted(clip["source_id"] for clip in clips) == sorted(ids[5:])
    assert reasons(losses) == {"unsafe_source_id": 5}


def test_a_missing_value_in_a_template_is_missing_media(tmp_path):
    write_jsonl(tmp_path / "clips.jsonl", [clip_row("v1", name=None), clip_row("v2", name="x")])
    _, _, losses = run_ingest(recipe_of(tmp_path, {"media": {"kind": "files", "uri": "clips/{name}.mp4"}}))
    assert [loss["reason"] for loss in losses] == ["media_missing"]


# --- tars ------------------------------------------------------------------------------------------------------------


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def video2dataset(*keys: str) -> dict[str, bytes]:
    endings = ("mp4", "txt", "json")
    return {f"{key}.{ending}": f"{ending} of {key}".encode() for key in keys for ending in endings}


def ingest_tars(folder: Path, rows: list[dict]):
    write_jsonl(folder / "clips.jsonl", rows)
    return run_ingest(recipe_of(folder, {"media": {"kind": "tars", "uri": "tars/*.tar", "key": "{key}"}}))


def test_clips_in_tars_are_found_by_key_tar_and_byte_range(tmp_path):
    keys = ["00000_0", "id_00:00:01.000_00:00:02.000", "./id_2.5", "ü" * 60]  # dots, colons, a long name
    write_tar(tmp_path / "tars/a.tar", video2dataset(*keys[:2]))
    write_tar(tmp_path / "tars/b.tar", video2dataset(*keys[2:]) | {"other.webm": b"webm"})
    wanted = [*(key.removeprefix("./") for key in keys), "other"]
    _, clips, losses = ingest_tars(tmp_path, [clip_row(f"v{number}", key=key) for number, key in enumerate(wanted)])
    assert losses == []
    for clip, key in zip(clips, [*keys, "other"], strict=True):
        content = Path(clip["media_uri"]).read_bytes()[clip["media_offset_bytes"] :][: clip["media_size_bytes"]]
        assert content == (b"webm" if key == "other" else f"mp4 of {key}".encode())


def test_a_key_in_no_tar_is_missing_and_one_in_two_is_ambiguous(tmp_path):
    write_tar(tmp_path / "tars/a.tar", video2dataset("one", "two"))
    write_tar(tmp_path / "tars/b.tar", video2dataset("two", "three"))
    rows = [clip_row(f"v-{key}", key=key) for key in ("one", "two", "three", "four", None)]
    _, clips, losses = ingest_tars(tmp_path, rows)
    assert [clip["key"] for clip in clips] == ["one", "three"]
    assert {loss["source_id"]: loss["reason"] for loss in losses} == {
        "v-two": "media_ambiguous",
        "v-four": "media_missing",
        "v-None": "media_missing",
    }


@pytest.mark.parametrize("cut", ["member", "header", "block"])
def test_a_tar_that_breaks_off_gives_what_lies_before_the_break(tmp_path, cut):
    write_tar(tmp_path / "tars/a.tar", {"one.mp4": b"1" * 5000, "two.mp4": b"2" * 5000})
    file = tmp_path / "tars/a.tar"
    second = 512 + 5120  # header of the second member
    file.write_bytes(file.read_bytes()[: {"member": second + 512 + 700, "header": second + 100, "block": second}[cut]])
    _, clips, losses = ingest_tars(tmp_path, [clip_row("v1", key="one"), clip_row("v2", key="two")])
    assert [clip["key"] for clip in clips] == ["one"]
    assert [loss["reason"] for loss in losses] == ["media_truncated" if cut == "member" else "media_missing"]
    assert losses[0]["detail"].endswith(
        {
            "member": "a.tar breaks off in it: 700 of 5000 bytes are there",
            "header": "a.tar has no whole header at byte 5632, so what lies behind is not read",
            "block": "a.tar ends without an end-of-archive mark, so it may have been cut off",
        }[cut]
    )


@pytest.mark.parametrize("content", [b"", b"not a tar" * 200])
def test_a_file_that_is_no_tar_gives_nothing(tmp_path, content):
    write_tar(tmp_path / "tars/a.tar", video2dataset("one"))
    (tmp_path / "tars/b.tar").write_bytes(content)
    _, clips, _ = ingest_tars(tmp_path, [clip_row("v1", key="one")])
    assert len(clips) == 1


def test_reading_metadata_writes_nothing_to_the_output(tmp_path):
    write_tar(tmp_path / "tars/a.tar", video2dataset("one"))
    ingest_tars(tmp_path, [clip_row("v1", key="one")])
    assert not (tmp_path / "output").exists()


# --- later runs ------------------------------------------------------------------------------------------------------


def publish(recipe) -> Manifest:
    """Ingest and publish the tables as a snapshot, as a run does; the granularities are left out."""
    run = open_run(recipe)
    with Database(threads=1) as database:
        found = ingest.ingest(database, run)
        ingest.publish_clips(database, run)
    tables = [
        f"tables/{storage.name_of(file.uri)}"
        for file in storage.list_files(f"{recipe.output_uri}/tables/*-{run.snapshot:06d}.parquet")
    ]
    snapshot = Snapshot(
        run.snapshot, "", recipe.hash, recipe.resolved(), run.inputs, {}, (found.account,), tuple(tables), {}
    )
    manifest = Manifest(recipe.name, (*run.manifest.snapshots, snapshot))
    storage.publish_bytes(manifest.to_json(), run.layout.manifest)
    return manifest


def test_a_later_run_takes_only_clips_it_does_not_know(tmp_path):
    first = [clip_row("v1", 0, 1), clip_row("v1", 1, 2), clip_row("bad", 2, 1)]
    write_jsonl(tmp_path / "clips.jsonl", first)
    recipe = recipe_of(tmp_path)
    publish(recipe)
    # The same clip with another caption is still the same clip: a published sample is never rewritten.
    write_jsonl(tmp_path / "clips.jsonl", [*first, clip_row("v1", 2, 3), clip_row("v1", "0.0", "1", "other words")])
    found, clips, losses = run_ingest(recipe)
    assert [(clip["source_id"], clip["start_s"]) for clip in clips] == [("v1", 2.0)]
    assert found.account.num_known == 2
    assert reasons(losses) == {"duplicate_clip": 1, "end_not_after_start": 1}
    assert [loss["detail"] for loss in losses if loss["reason"] == "duplicate_clip"] == [
        f"with another caption; kept: {first[0]['Caption']}"
    ]
    assert found.notes == ()
    publish(recipe)
    assert run_ingest(recipe)[0].account.num_known == 3


def test_what_the_metadata_no_longer_say_is_told_and_stays(tmp_path):
    (tmp_path / "m").mkdir()
    write_jsonl(tmp_path / "m/a.jsonl", [clip_row("v1", 0, 1), clip_row("v1", 1, 2)])
    write_jsonl(tmp_path / "m/b.jsonl", [clip_row("v2", 0, 1), clip_row("v2", 1, 2)])
    write_jsonl(tmp_path / "m/c.jsonl", [clip_row("v3", 0, 1)])
    recipe = recipe_of(tmp_path, {"clips": "m/*.jsonl"})
    publish(recipe)
    (tmp_path / "m/b.jsonl").unlink()
    (tmp_path / "m/c.jsonl").unlink()
    write_jsonl(tmp_path / "m/a.jsonl", [clip_row("v1", 0, 1, "other words"), clip_row("v4", 0, 1)])
    found, clips, _ = run_ingest(recipe)
    assert ([clip["source_id"] for clip in clips], found.account.num_known) == (["v4"], 1)
    assert found.notes == (
        f"files of the last snapshot that are no longer found: {tmp_path}/m/b.jsonl and 1 more",
        "4 known clips are in the metadata no more; what was made of them stays",
        "1 known clips have another caption now; they keep the one they came with",
    )


def test_a_later_run_may_bring_other_columns(tmp_path):
    write_jsonl(tmp_path / "clips.jsonl", [clip_row("v1", Score=1)])
    recipe = recipe_of(tmp_path)
    publish(recipe)
    write_jsonl(tmp_path / "clips.jsonl", [clip_row("v1", Other="x"), clip_row("v2", Other="x")])
    found, clips, _ = run_ingest(recipe)
    assert ([clip["source_id"] for clip in clips], found.account.num_known) == (["v2"], 1)


def test_a_later_run_reads_only_tars_that_are_new_or_changed(tmp_path):
    write_tar(tmp_path / "tars/a.tar", video2dataset("one"))
    write_jsonl(tmp_path / "clips.jsonl", [clip_row("v1", key="one")])
    recipe = recipe_of(tmp_path, {"media": {"kind": "tars", "uri": "tars/*.tar"}})
    publish(recipe)
    assert pq.read_table(tmp_path / "output/tables/media-index-000000.parquet")["key"].to_pylist() == ["one"]
    write_tar(tmp_path / "tars/b.tar", video2dataset("two"))
    write_jsonl(tmp_path / "clips.jsonl", [clip_row("v1", key="one"), clip_row("v2", key="two")])
    publish(recipe)
    assert pq.read_table(tmp_path / "output/tables/media-index-000001.parquet")["key"].to_pylist() == ["two"]
    clips = pq.read_table(tmp_path / "output/tables/clips-000001.parquet").to_pylist()
    assert [(clip["source_id"], Path(clip["media_uri"]).name) for clip in clips] == [("v2", "b.tar")]


@pytest.mark.parametrize("twice", [False, True])
def test_a_known_clip_is_moved_to_where_its_key_is_and_to_neither_of_two_places(tmp_path, twice):
    write_tar(tmp_path / "tars/a.tar", video2dataset("one"))
    write_jsonl(tmp_path / "clips.jsonl", [clip_row("v1", key="one")])
    recipe = recipe_of(tmp_path, {"media": {"kind": "tars", "uri": "tars/*.tar"}})
    publish(recipe)
    write_tar(tmp_path / "tars/a.tar", video2dataset("new", "one"))
    if twice:
        write_tar(tmp_path / "tars/b.tar", {"one.mp4": b"another video"})
    publish(recipe)
    moved = tmp_path / "output/tables/media-moved-000001.parquet"
    assert moved.exists() == (not twice)
    if not twice:
        (row,) = pq.read_table(moved).to_pylist()
        content = Path(row["media_uri"]).read_bytes()[row["media_offset_bytes"] :][: row["media_size_bytes"]]
        assert content == b"mp4 of one"


# --- types -----------------------------------------------------------------------------------------------------------

BIG = 7123456789012345678


def night(folder: Path, name: str, **columns) -> None:
    """A Parquet file of clips of one second; columns given are lists or arrays."""
    num_rows = len(next(iter(columns.values())))
    rows = {"YoutubeID": [f"{name}-{n}" for n in range(num_rows)], "Start_timestamp": ["0"] * num_rows}
    rows |= {"End_timestamp": ["1"] * num_rows, "Caption": ["a dog runs"] * num_rows}
    pq.write_table(pa.table(rows | columns), folder / f"{name}.parquet")


def nights(folder: Path, **source):
    return run_ingest(recipe_of(folder, {"clips": "n*", **source}))


@pytest.mark.parametrize(
    ("whole", "floats", "expected", "rejected"),
    [
        ([BIG, BIG + 1, BIG + 2], [BIG + 3.0, None], [], {"missing_source_id": 2}),
        ([7, 8, 9], [10.0, None], ["10"], {"missing_source_id": 1}),
        ([7, 8, 9], [2.0**53 - 1, 2.0**53, -1.5, float("inf")], ["-1.5", "9007199254740991"], {"missing_source_id": 2}),
    ],
)
def test_ids_of_one_night_are_not_changed_by_those_of_another(tmp_path, whole, floats, expected, rejected):
    """A float64 night, as pandas makes of ids of which one is missing, merged the videos of all nights into one."""
    night(tmp_path, "n1", YoutubeID=pa.array(whole))
    _, alone, _ = nights(tmp_path)
    night(tmp_path, "n2", YoutubeID=pa.array(floats, pa.float64()))
    _, clips, losses = nights(tmp_path)
    before = {clip["clip_id"] for clip in alone}
    assert [clip["source_id"] for clip in alone] == sorted(map(str, whole))
    assert sorted(clip["source_id"] for clip in clips if clip["clip_id"] not in before) == expected
    assert [clip["media_uri"] for clip in clips if clip["clip_id"] in before] == [clip["media_uri"] for clip in alone]
    assert reasons(losses) == rejected


def test_an_id_that_lost_its_digits_in_a_float_is_none_in_any_format(tmp_path):
    night(tmp_path, "n1", YoutubeID=pa.array([16777215.0, 16777217.0], pa.float32()))
    (tmp_path / "n2.csv").write_text(f"{HEADER}\n7.12346E+18,0,1,x\n1e10,0,1,x\na+b,0,1,x\n")
    write_jsonl(tmp_path / "n3.jsonl", [clip_row(7.1e18), clip_row(BIG * 1000), clip_row("a")])
    _, clips, losses = nights(tmp_path)
    assert [clip["source_id"] for clip in clips] == ["16777215", "1e10", f"{BIG}000", "a", "a+b"]
    assert reasons(losses) == {"missing_source_id": 3}
    assert "1.6777216000000000e+07" in {json.loads(loss["row"])["YoutubeID"] for loss in losses}


def test_of_an_id_that_lost_its_digits_that_is_said_and_in_which_file(tmp_path):
    """The reason said that there is no id, while there was one in every row of the metadata."""
    night(tmp_path, "n1", YoutubeID=pa.array([7, 8]))
    (tmp_path / "n2.csv").write_text(f"{HEADER}\n 7.12E+18 ,0,1,x\n,0,1,x\n")
    night(tmp_path, "n3", YoutubeID=pa.array([float(BIG)]))
    found, _, losses = nights(tmp_path)
    lost = "the id lost its digits: it was read as a floating number, "
    assert sorted(loss["detail"] for loss in losses) == ["", f"{lost}7.1234567890123459e+18", f"{lost}7.12E+18"]
    assert found.notes == (
        "rows rejected: 2, since their YoutubeID lost its digits: it was read as a floating number, such as "
        "7.1234567890123459e+18 in n3.parquet. Write that column as text or as whole numbers",
    )
    (tmp_path / "n3.parquet").unlink()
    assert "rows rejected: 1, since" in (note := nights(tmp_path)[0].notes[0])
    assert "such as 7.12E+18 in n2.csv. Write" in note


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.array([36000.123, 2.0], pa.float32()), pa.array([3.0])),
        (pa.array([36000, 2]), pa.array([3.5])),
        (pa.array([36000.123, 2.0], pa.float32()), pa.array(["00:00:03"])),
        (pa.array([1000, 2000], pa.time32("ms")), pa.array([3.0])),
    ],
)
def test_times_of_one_night_are_not_changed_by_those_of_another(tmp_path, one, other):
    """A float32 beside a float64 gave 36000.121 for 36000.12, another clip; TIME beside it ended the run."""
    night(tmp_path, "n1", Start_timestamp=one, End_timestamp=pa.array(["11:00:00"] * 2))
    _, alone, _ = nights(tmp_path)
    night(tmp_path, "n2", Start_timestamp=other)
    _, clips, _ = nights(tmp_path)
    ours = ("clip_id", "start_s", "media_uri")
    told = [[clip[name] for name in ours] for clip in clips if clip["source_id"].startswith("n1")]
    assert told == [[clip[name] for name in ours] for clip in alone]
    assert len(told) == 2


def test_a_predicate_still_reckons_with_times_that_are_float_one_night_and_whole_the_other(tmp_path):
    night(tmp_path, "n1", Start_timestamp=pa.array([1, 1]), End_timestamp=pa.array([4, 2]))
    night(tmp_path, "n2", Start_timestamp=pa.array([0.5]), End_timestamp=pa.array([2.75]))
    _, clips, losses = nights(tmp_path, where="End_timestamp - Start_timestamp > 2")
    assert [(clip["source_id"], clip["start_s"], clip["End_timestamp"]) for clip in clips] == [
        ("n1-0", 1.0, 4.0),
        ("n2-0", 0.5, 2.75),
    ]
    assert clips[0]["media_uri"].endswith("/n1-0-1.mp4")
    assert reasons(losses) == {"filtered_by_where": 1}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([[1, 2]], ["q"], ["[1,2]", "q"]),
        ([{"a": 1}], [5], ['{"a":1}', "5"]),
        ([b"caf\xc3\xa9"], ["y"], ["café", "y"]),
        (pa.array([0], pa.date32()), [1], ["1970-01-01", "1"]),
        ([BIG], [0.5], [str(BIG), "0.5"]),
        ([3], [0.5], [3.0, 0.5]),
        (pa.array([16777217], pa.int32()), pa.array([0.5], pa.float32()), [16777217.0, 0.5]),
        (pa.array([1], pa.int32()), [BIG], [1, BIG]),
        (pa.nulls(1), [["a"]], [None, ["a"]]),
        ([{"a": 1}], [{"b": "x"}], [{"a": 1, "b": None}, {"a": None, "b": "x"}]),
    ],
)
def test_a_column_that_changes_its_type_keeps_its_values(tmp_path, one, other, expected):
    """A list one night and a text the other ended every run, also where nobody named the column."""
    night(tmp_path, "n1", x=one)
    night(tmp_path, "n2", x=other)
    _, clips, losses = nights(tmp_path)
    assert ([clip["x"] for clip in clips], losses) == (expected, [])


def test_files_are_read_apart_only_where_a_type_makes_it_necessary(tmp_path):
    night(tmp_path, "n1", x=["a"])
    night(tmp_path, "n2", x=["b"], y=[1])
    night(tmp_path, "n3", y=pa.array([2], pa.int32()))
    recipe = recipe_of(tmp_path, {"clips": "n*"})

    def num_reads() -> int:
        with Database(threads=1) as database:
            ingest.ingest(database, open_run(recipe))
            return database.value("SELECT sql FROM duckdb_views() WHERE view_name = 'input_rows'").count("read_parquet")

    assert num_reads() == 1
    night(tmp_path, "n4", x=[["c"]])
    night(tmp_path, "n5", x=[["d"]])
    assert num_reads() == 3, "texts, lists and no x at all"


def test_names_that_differ_in_case_only_are_one_column_in_every_format(tmp_path):
    """DuckDB called the second key of JSON `caption_1` and then found nothing under it."""
    found = {}
    for ending in ("csv", "jsonl", "parquet"):
        folder = tmp_path / ending
        folder.mkdir()
        for number, caption, score in ((1, "Caption", "Score"), (2, "caption", "score")):
            row = {
                "YoutubeID": f"v{number}",
                "Start_timestamp": "0",
                "End_timestamp": "1",
                caption: "a cat",
                score: 0.5,
            }
            if ending == "jsonl":
                write_jsonl(folder / f"n{number}.jsonl", [row])
            else:
                write = {"csv": pyarrow.csv.write_csv, "parquet": pq.write_table}[ending]
                write(pa.table({key: [value] for key, value in row.items()}), folder / f"n{number}.{ending}")
        _, clips, losses = nights(folder, where="Score > 0.3")
        found[ending] = [(clip["clip_id"], clip["Caption"], clip["Score"], len(clip)) for clip in clips]
        assert losses == []
    assert [caption for _, caption, *_ in found["csv"]] == ["a cat"] * 2
    assert found["csv"] == found["jsonl"] == found["parquet"]


def test_the_first_file_says_what_a_column_is_called_also_among_other_formats(tmp_path):
    night(tmp_path, "n1", Start_timestamp=[0.0])
    (tmp_path / "n2.csv").write_text(f"{HEADER.lower()}\nv2,0,1,a cat\n")
    night(tmp_path, "n3", Start_timestamp=[0])
    _, clips, _ = nights(tmp_path)
    assert [(clip["source_id"], clip["Caption"]) for clip in clips] == [
        ("n1-0", "a dog runs"),
        ("n3-0", "a dog runs"),
        ("v2", "a cat"),
    ]


def test_json_keys_of_any_name_and_case_lose_no_value(tmp_path):
    rows = [
        {"": 7, **clip_row("v1", Score=1, **{"a/b~c": [1], 'say "x"': True})},
        {"": None, **clip_row("v2", score=0.5, SCORE=2)},
        {"YOUTUBEID": "v3", "Start_timestamp": 2, "End_timestamp": 1, "caption": "x", "score": None},
    ]
    write_jsonl(tmp_path / "n1.jsonl", rows)
    with (tmp_path / "n1.jsonl").open("a") as file:
        file.write("bad\n[1]\n")
    _, clips, losses = nights(tmp_path)
    assert [(clip["source_id"], clip["column0"], clip["Score"]) for clip in clips] == [
        ("v1", 7, 1.0),
        ("v2", None, 0.5),
    ]
    assert (clips[0]["a/b~c"], clips[0]['say "x"'], clips[1]["a/b~c"]) == ("[1]", True, None)
    assert reasons(losses) == {"end_not_after_start": 1, "unreadable_row": 2}
    assert json.loads(losses[0]["row"])["Caption"] == "x"
    assert [loss["row"] for loss in losses[1:]] == ["[1]", "bad"]


def test_a_csv_column_without_a_name_is_called_by_its_place(tmp_path):
    """What pandas writes with its index was the only common CSV that could not be read."""
    _, clips, _ = ingest_text(tmp_path, "c.csv", f",{HEADER},\n0,v1,0,1,a dog,\n1,v2,0,1,a cat,x\n")
    assert [(clip["source_id"], clip["column0"], clip["column5"]) for clip in clips] == [
        ("v1", 0, None),
        ("v2", 1, "x"),
    ]
    with pytest.raises(GexError, match="its header has 'column0' twice"):
        ingest_text(tmp_path, "c.csv", f",{HEADER},column0\n0,v1,0,1,a dog,\n")


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_score_that_is_no_number_passes_no_threshold(tmp_path, ending):
    """DuckDB takes NaN for the largest of all numbers, so clips without a score were the best of all."""
    scores = [0.9, float("nan"), 0.1, None]
    rows = [clip_row(f"v{number}", UMT_Score=score) for number, score in enumerate(scores)]
    if ending == "jsonl":
        write_jsonl(tmp_path / "n.jsonl", rows)
    else:
        write = {"csv": pyarrow.csv.write_csv, "parquet": pq.write_table}[ending]
        write(pa.table({name: [row[name] for row in rows] for name in rows[0]}), tmp_path / f"n.{ending}")
    found, clips, losses = nights(tmp_path, where="UMT_Score > 0.3")
    assert [clip["source_id"] for clip in clips] == ["v0"]
    assert found.account.excluded == {"filtered_by_where": 3}
    assert "nan" not in " ".join(loss["row"] for loss in losses).lower()


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_a_night_without_scores_beside_one_with_all_of_them_passes_no_threshold(tmp_path, kind):
    """DuckDB takes from the statistics of several files that none holds NaN; infinities are values."""
    night(tmp_path, "n1", score=pa.array([float("nan"), 0.75, float("inf")], kind))
    night(tmp_path, "n2", score=pa.array([0.75, 0.25], kind))
    _, clips, _ = nights(tmp_path, where="score > 0.5")
    assert [(clip["source_id"], clip["score"]) for clip in clips] == [
        ("n1-1", 0.75),
        ("n1-2", float("inf")),
        ("n2-0", 0.75),
    ]
    assert [clip["source_id"] for clip in nights(tmp_path, where="score IS NULL")[1]] == ["n1-0"]


def test_a_missing_caption_that_a_program_wrote_as_nan_is_missing(tmp_path):
    write_jsonl(tmp_path / "n1.jsonl", [clip_row("v1", caption=float("nan")), clip_row("v2", caption="nanny")])
    night(tmp_path, "n2", Caption=pa.array([float("nan")]))
    _, clips, losses = nights(tmp_path)
    assert ([clip["source_id"] for clip in clips], reasons(losses)) == (["v2"], {"missing_caption": 2})


@pytest.mark.parametrize("value", [["a dog", "a cat"], {"en": "a dog"}])
def test_lists_and_objects_are_no_captions(tmp_path, value):
    """They were published as text, brackets and all."""
    for ending in ("parquet", "jsonl"):
        folder = tmp_path / ending
        folder.mkdir()
        if ending == "jsonl":
            write_jsonl(folder / "n1.jsonl", [clip_row(caption=value), clip_row("v2", caption=value)])
        else:
            night(folder, "n1", Caption=[value])
            night(folder, "n2", Caption=["a text"])
        with pytest.raises(
            RecipeError, match=r"column 'Caption' holds lists or objects \(.*\); one text or number a row"
        ):
            nights(folder)


def test_a_row_with_a_list_for_a_caption_is_rejected_with_it(tmp_path):
    captions = [["a dog"], "[1]", {"a": 1}, 5, "NaN"]
    write_jsonl(tmp_path / "n1.jsonl", [clip_row(f"v{n}", caption=caption) for n, caption in enumerate(captions)])
    _, clips, losses = nights(tmp_path)
    assert [clip["text"] for clip in clips] == ["[1]", "5"]
    assert reasons(losses) == {"missing_caption": 3}
    assert {json.loads(loss["row"])["Caption"] for loss in losses} == {'["a dog"]', '{"a":1}', None}


def test_a_text_becomes_a_number_only_where_the_number_says_the_same(tmp_path):
    columns = {
        "channel": ["118341520932850938512", "118341520932850938513"],
        "take": ["12_3", "1_23"],
        "mixed": [str(BIG), "0.5"],
        "zeros": ["007", "1.5"],
        "micros": ["1700000000000001", "nan"],
        "score": [" 0.48799991607666016", "1e-3 "],
        "views": ["12", "-3"],
    }
    lines = [f"{HEADER},{','.join(columns)}"]
    lines += [f"v{n},0,1,x,{','.join(values[n] for values in columns.values())}" for n in range(2)]
    _, clips, _ = ingest_text(tmp_path, "c.csv", "\n".join(lines) + "\n")
    found = {name: [clip[name] for clip in clips] for name in columns}
    numbers = {"micros": [1700000000000001.0, None], "score": [0.48799991607666016, 0.001], "views": [12, -3]}
    assert found == columns | numbers
