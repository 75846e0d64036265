from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import av
import pytest

from gex_pipeline.cli.main import main
from gex_pipeline.demo import draw_corpus
from gex_pipeline.errors import GexError
from gex_pipeline.progress import LineProgress, shown_by

ROOT = Path(__file__).parents[2]
COLUMNS = ["YoutubeID", "Start_timestamp", "End_timestamp", "Caption", "Aesthetic_Score", "UMT_Score", "Channel"]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def account(folder):
    return json.loads((folder / "corpus.json").read_text())


def seconds(stamp):
    hours, minutes, rest = stamp.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def clip_path(folder, row):
    name = f"{row['YoutubeID']}_{row['Start_timestamp']}_{row['End_timestamp']}.mp4"
    return folder / "clips" / name.replace(":", "-")


def damaged_files(folder):
    return {file for fault in account(folder)["faults"] if fault["reason"] for file in fault["files"]}


def test_the_same_settings_draw_the_same_bytes_with_one_process_or_two(corpus, settings, tmp_path):
    said = io.StringIO()
    with shown_by(LineProgress(said)):
        again = draw_corpus(tmp_path, replace(settings, workers=2))
    assert again.was_drawn
    assert account(tmp_path) == account(corpus)
    assert re.fullmatch(r"draw the corpus +4 sources in \S+ s\n", said.getvalue())


def test_the_command_says_that_it_draws(tmp_path, capsys):
    """Drawing takes most of a minute; not a word came before it was done."""
    (tmp_path / "recipe.toml").write_text("no recipe\n")  # so that nothing is run
    assert main(["demo", str(tmp_path), "--sources", "4"]) == 2
    assert re.search(r"^draw the corpus +4 sources in ", capsys.readouterr().err, re.MULTILINE)


def test_a_finished_corpus_is_recognised_and_left_alone(corpus, settings):
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
    summary = draw_corpus(corpus, replace(settings, workers=2))
    assert not summary.was_drawn and summary.num_sources == 4
    assert summary.num_clips == len(lines(corpus / "clips.jsonl")) and summary.num_faults == 10
    assert {path: path.stat().st_mtime_ns for path in corpus.rglob("*")} == before


def test_a_damaged_or_half_drawn_corpus_is_drawn_anew(corpus, settings, tmp_path):
    draw_corpus(tmp_path, settings)
    whole = sorted((tmp_path / "clips").glob("*.mp4"), key=lambda path: path.stat().st_size)[-1]
    whole.write_bytes(whole.read_bytes()[:-1])
    assert draw_corpus(tmp_path, settings).was_drawn
    (tmp_path / "corpus.json").unlink()
    (tmp_path / "corpus.drawing").touch()
    (tmp_path / "clips" / "left_over.mp4").touch()
    assert draw_corpus(tmp_path, settings).was_drawn
    assert account(tmp_path) == account(corpus)
    assert not (tmp_path / "corpus.drawing").exists() and not (tmp_path / "clips" / "left_over.mp4").exists()


DRAW = """
import sys
from pathlib import Path
from gex_pipeline.demo import CorpusSettings, draw_corpus
draw_corpus(Path(sys.argv[1]), CorpusSettings(num_sources=4, seed=3, workers=1))
"""


def test_of_two_that_draw_at_once_one_is_told_and_the_corpus_is_whole(corpus, settings, tmp_path):
    """The second took the first one's clips for those of one that was killed, and removed them under its hands."""
    with subprocess.Popen([sys.executable, "-c", DRAW, str(tmp_path)], cwd=ROOT) as first:
        while not (tmp_path / "clips").exists() and first.poll() is None:
            time.sleep(0.01)
        with pytest.raises(GexError, match=rf"is held by process {first.pid} on "):
            draw_corpus(tmp_path, settings)
        assert first.wait(60) == 0
    assert account(tmp_path) == account(corpus)
    assert not draw_corpus(tmp_path, settings).was_drawn
    assert not (tmp_path / "run.lock").exists()


def test_a_place_that_cannot_be_written_to_is_a_sentence(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["demo", str(tmp_path / "file" / "demo")]) == 1
    assert re.fullmatch(r"gex: storage failed for '.*/file/demo': .*Not a directory.*\n", capsys.readouterr().err)


def test_a_disk_that_becomes_full_while_clips_are_drawn_is_a_sentence(tmp_path):
    """It was two tracebacks, one out of the process that drew. A limit on files stands for the disk."""
    command = [sys.executable, "-m", "gex_pipeline.cli.main", "demo", str(tmp_path), "--sources", "4"]
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 1; exec "$@"', "-", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"gex: storage failed for '{tmp_path}': the file is larger than a limit allows (see ulimit -f); raise it, or "
        "make shards smaller"
    )
    assert "Traceback" not in done.stderr


def test_clips_that_are_not_a_demo_are_never_touched(settings, tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "mine.mp4").write_bytes(b"precious")
    with pytest.raises(GexError, match="that are no demo corpus; name an empty folder"):
        draw_corpus(tmp_path, settings)
    assert (tmp_path / "clips" / "mine.mp4").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_sources": 3}, "num_sources is 3; a corpus with faults=True needs 4"),
        ({"height_px": 143}, "192x143 px: both sides must be even"),
        ({"seed": -1}, "seed is -1; expected 0 or more"),
        ({"fps": 0}, "fps is 0; expected 1 to 60"),
    ],
)
def test_settings_that_cannot_be_drawn_are_refused(settings, change, message):
    with pytest.raises(GexError, match=message):
        replace(settings, **change)


def test_rows_have_internvids_columns_and_a_channel(corpus):
    rows = lines(corpus / "clips.jsonl")
    assert all(list(row) == COLUMNS for row in rows)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{11}", row["YoutubeID"]) for row in rows)
    assert sum(not re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}", row["Start_timestamp"]) for row in rows) == 1


def test_a_good_clip_lasts_as_long_as_its_row_says_and_its_file_can_be_joined_without_encoding(corpus):
    damaged = damaged_files(corpus)
    rows = [row for row in lines(corpus / "clips.jsonl") if clip_path(corpus, row).exists()]
    good = [row for row in rows if f"clips/{clip_path(corpus, row).name}" not in damaged]
    assert len(good) >= 12
    for row in good:
        with av.open(str(clip_path(corpus, row))) as container:
            (stream,) = container.streams
            packets = [packet for packet in container.demux(stream) if packet.size]
            claimed_s = seconds(row["End_timestamp"]) - seconds(row["Start_timestamp"])
            assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
            assert stream.average_rate == 12 and len(packets) == round(claimed_s * 12)
            assert float(stream.duration * stream.time_base) == pytest.approx(claimed_s, abs=1 / 12)
            assert packets[0].is_keyframe and packets[0].pts == packets[0].dts == 0
            assert stream.codec_context.has_b_frames == 0


def test_a_good_clip_follows_the_one_before_it(corpus):
    end_s: dict[str, float] = {}
    for row in lines(corpus / "clips.jsonl")[:-1]:
        if "?" in row["Start_timestamp"] or row["Start_timestamp"] > row["End_timestamp"]:
            continue
        assert seconds(row["Start_timestamp"]) >= end_s.get(row["YoutubeID"], 0.0)
        end_s[row["YoutubeID"]] = seconds(row["End_timestamp"])


def test_references_are_given_for_the_groups_that_remain(corpus):
    references = lines(corpus / "references.jsonl")
    rows = lines(corpus / "clips.jsonl")[:-1]  # the last one is the duplicate
    damaged = damaged_files(corpus) - {
        f for x in account(corpus)["faults"] if x["fault"] == "duplicate_row" for f in x["files"]
    }
    lost = [file.split("/")[1][:11] for file in damaged]
    for given in references:
        drawn = sum(row["YoutubeID"] == given["YoutubeID"] for row in rows)
        assert given["clips"] == drawn - lost.count(given["YoutubeID"]) >= 4
        assert 10 <= len(given["Reference"].split()) <= 20
    assert len(references) == 2  # of four sources one is short by nature and one through its fault
