"""What `gex eval`, `embed` and `search` say of cut texts, of ties, and of how many entries were measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gex_pipeline.cli.main import main
from tests.media.making_clips import Make, make_clip
from tests.trainer.annotations.real_formats import CHARADES_CLASSES, written
from tests.trainer.test_evaluate import with_texts

LONG = "half 0 of a picture " * 12  # the text tower takes 24 tokens


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("media")
    for number in range(4):
        make_clip(folder / f"v{number}.mp4", number, Make(num_frames=4, size_px=(96, 96)))
    return str(folder)


@pytest.fixture
def gex(tiny_model_folder, capsys):
    """Run a command with the tiny model; its exit code and what it printed."""

    def run(command: str, *arguments: object) -> tuple[int, str, str]:
        try:
            code = main([command, str(tiny_model_folder), *map(str, arguments)])
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def long_texts(numbered_output, tmp_path_factory) -> Path:
    """An output of which five LVST texts are longer than the text tower takes."""
    output = Path(shutil.copytree(numbered_output, tmp_path_factory.mktemp("long") / "out"))
    with_texts(output, "LVST", lambda text: f"{text} {LONG}" if int(text[5:7]) < 5 else text)
    return output


def test_cut_texts_are_in_a_line_and_in_the_json(gex, long_texts):
    arguments = (long_texts, "--granularity", "LVST", "--workers", "0")
    code, out, err = gex("eval", *arguments)
    assert code == 0, err
    assert "  5 texts do not fit the text tower: their ends were not read" in out
    (found,) = json.loads(gex("eval", *arguments, "--json")[1])["evaluations"]
    assert found["num_truncated_texts"] == 5
    assert "text tower" not in gex("eval", long_texts, "--granularity", "IT", "--workers", "0")[1]


def test_embed_and_search_note_cut_texts_on_the_error_stream(gex, long_texts, tmp_path):
    out = tmp_path / "v.parquet"
    code, _, err = gex("embed", long_texts, "--granularity", "LVST", "-o", out, "--workers", "0")
    assert (code, "note: 5 of 18 texts of LVST do not fit the text tower; their ends are not read" in err) == (0, True)
    lines = written(tmp_path / "lines.txt", f"a cat\n{LONG}\n")
    code, _, err = gex("embed", "--texts", lines, "--granularity", "LVST", "-o", tmp_path / "t.parquet")
    assert (code, "note: 1 of 2 texts do not fit the text tower" in err) == (0, True)
    search = (long_texts, "--granularity", "LVST", "--vectors", out)
    code, _, err = gex("search", LONG, *search)
    assert (code, "the end of 'half 0 of a picture" in err) == (0, True)
    assert "text tower" not in gex("search", "a cat", *search)[2]


def test_some_entries_of_a_public_data_set_are_told_as_some(gex, media, tmp_path):
    """With --max-samples it said "4 of 5 entries used", and of the choice nothing."""
    rows = "".join(f"v{number},half {number}\n" for number in range(4))
    csv = written(tmp_path / "test.csv", f"video_id,sentence\n{rows}gone,x\n")
    arguments = (csv, "--annotations", "msrvtt", "--media", media, "--workers", "0", "--num-frames", "2")
    code, out, err = gex("eval", *arguments, "--max-samples", "3", "--seed", "5")
    assert code == 0, err
    assert "test.csv: 4 of 5 entries used; 1 without media: gone; 3 of these measured, chosen by seed 5" in out
    assert "msrvtt: 3 samples" in out
    assert "chosen by seed" not in gex("eval", *arguments, "--max-samples", "4")[1]


def test_of_a_published_data_set_it_is_said_too(gex, numbered_output):
    code, out, _ = gex("eval", numbered_output, "--granularity", "IT", "--max-samples", "7", "--workers", "0")
    assert (code, "  7 of 18 samples, chosen by seed 0" in out) == (0, True)


def test_average_precision_has_no_rule_for_ties_and_names_none(gex, media, tmp_path):
    """--ties changed nothing of it, and was printed beside it."""
    classes = written(tmp_path / "classes.txt", CHARADES_CLASSES)
    videos = written(tmp_path / "videos.csv", "id,actions\nv0,c000 0 1\nv1,c001 0 1\nv2,c002 0 1\n")
    flags = ("--annotations", "charades-ego", "--media", media, "--class-names", classes, "--workers", "0")
    arguments = (videos, *flags, "--num-frames", "2")
    code, out, err = gex("eval", *arguments)
    assert code == 0, err
    assert "map percent" in out
    assert "ties" not in out
    assert json.loads(gex("eval", *arguments, "--json")[1])["evaluations"][0]["options"]["ties"] is None
    code, out, err = gex("eval", *arguments, "--ties", "optimistic")
    assert (code, out) == (2, "")
    assert "--ties does not go with --annotations charades-ego" in err


def test_a_seed_of_a_split_without_its_share_is_wrong_usage(gex, numbered_output):
    """It was taken with the share of the training: another split than the one that was held out."""
    code, _, err = gex("eval", numbered_output, "--held-out-seed", "3")
    assert (code, "--held-out-seed goes with --held-out only" in err) == (2, True)
