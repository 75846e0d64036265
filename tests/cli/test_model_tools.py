"""``gex align``, ``cost``, ``embed`` and ``search`` as a person runs them: a tiny model, a numbered data set."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gex_pipeline.cli.align import find_sample, sample_of
from gex_pipeline.cli.main import main
from gex_pipeline.shards.target import open_target
from tests.media.making_clips import Make, make_clip
from tests.trainer.conftest import TEXTS, write_tiny_model
from tests.trainer.outputs import grouped, make_numbered_output
from trainer.catalog import read_catalog

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    from tests.validate.tiny_clip import write_tiny_clip

    folder = tmp_path_factory.mktemp("tiny")
    return str(write_tiny_model(folder / "model", write_tiny_clip(folder / "clip", TEXTS)))


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> str:
    return str(make_numbered_output(tmp_path_factory.mktemp("numbered"), 6))


@pytest.fixture
def gex(capsys, tmp_path, monkeypatch):
    """Run a command in an empty folder; its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        return code, *capsys.readouterr()

    return run


def key_of(output, granularity, number=0) -> str:
    with read_catalog(output, granularities=[granularity]) as catalog:
        return catalog.sample(granularity, number).key


def test_align_writes_a_strip_numbers_and_a_video_for_every_text(gex, model, output, tmp_path):
    key = key_of(output, "LVLT")
    arguments = ("--own-text", "--text", "a cat " * 20, "--patch", "16", "--stride", "8", "-o", "maps")
    code, out, err = gex("align", model, output, key[:20], *arguments)
    assert code == 0, err
    names = ["alignment.json", "alignment.png", "overlay-1.mp4", "overlay-2.mp4"]
    assert sorted(file.name for file in (tmp_path / "maps").iterdir()) == names
    assert all(str(tmp_path / "maps" / name) in out for name in names)
    content = json.loads((tmp_path / "maps" / "alignment.json").read_text())
    assert (content["key"], content["granularity"], content["n_iter_video"]) == (key, "LVLT", 3)
    assert [one["text"] for one in content["texts"]][1] == "a cat " * 20
    assert "the end of 'a cat a cat" in err  # 20 cats are more than 24 tokens
    assert np.shape(content["texts"][0]["scores"]) == (4, 3, 3)
    with Image.open(tmp_path / "maps" / "alignment.png") as picture:
        assert picture.width > 4 * 208
    with av.open(str(tmp_path / "maps" / "overlay-2.mp4")) as container:
        assert len(list(container.decode(video=0))) == 4


def test_align_takes_other_numbers_of_passes_and_an_image_has_no_video(gex, model, output, tmp_path):
    given = ("--n-iter-video", "2", "--n-iter-text", "0", "--patch", "16", "--precision", "bf16")
    code, _, err = gex("align", model, output, key_of(output, "IT"), *given)
    assert code == 0, err
    [folder] = tmp_path.iterdir()
    assert sorted(file.name for file in folder.iterdir()) == ["alignment.json", "alignment.png"]
    content = json.loads((folder / "alignment.json").read_text())
    assert (content["n_iter_video"], content["n_iter_text"], content["precision"]) == (2, 0, "bf16")


def test_align_reads_what_training_reads(output):
    target = open_target([output])
    with read_catalog(output) as catalog:
        for name in catalog.names:
            sample = catalog.sample(name, 1)
            assert find_sample(output, sample.key) == sample
    places = {
        "media_uri": "LVLT/LVLT-000000.tar",
        "media_offset_bytes": 0,
        "media_size_bytes": 9,
        "media_extension": "mp4",
    }
    row = {"key": "k", "granularity": "LVLT", "source_id": "s", "text": "t", "duration_s": 2.0, **places}
    beside = sample_of(target, row | {"frames_offset_bytes": 512, "frames_size_bytes": 1024})
    assert (beside.media_offset_bytes, beside.media_size_bytes, beside.media_extension) == (512, 1024, "frames")
    plain = sample_of(target, row | {"frames_offset_bytes": None, "frames_size_bytes": None})
    assert (plain.media_offset_bytes, plain.media_size_bytes, plain.media_extension) == (0, 9, "mp4")


def test_align_says_what_is_wrong_in_a_sentence(gex, model, output):
    key = key_of(output, "LVLT")
    for arguments, message in {
        (model, output, "nothing"): "no sample's key is or begins with 'nothing'",
        (model, "nowhere", key): "'nowhere' is neither an output",
        (model, output, key, "--text", " "): "a text is empty",
        (model, output, key, "--patch", "99"): "a mask of 99 px does not fit into frames of 32x32 px",
        ("nowhere", output, key): "no model at 'nowhere'",
    }.items():
        code, _, err = gex("align", *arguments)
        assert code == 1 and message in err


def test_cost_counts_without_a_network(gex):
    code, out, _ = gex("cost", "iam-paper", "--no-timing", "--json")
    content = json.loads(out)
    assert code == 0 and "timing" not in content
    assert (
        round(content["image_tower_flops"] / 1e9, 3) == 8.818 and round(content["text_tower_flops"] / 1e9, 3) == 5.960
    )
    long = content["flops"][1]
    assert (long["granularity"], long["num_frames"], long["n_iter_video"]) == ("LVLT", 32, 3)
    assert long["forward"] == long["image_tower"] + long["text_tower"] + long["video_iam"] + long["text_iam"]


def test_cost_measures_a_trained_model_against_mean_pooling(gex, model):
    code, out, _ = gex("cost", model, "--repeats", "1")
    assert code == 0
    assert "mean pooling over the same towers" in out and "more than mean pooling" in out
    assert "inference of 1 x 4 frames" in out  # of the granularity with the most
    assert [line.split()[0] for line in out.splitlines() if line.strip()[:1] in set("012345")] == list("012345")


def test_embed_leaves_out_what_the_model_does_not_know_and_takes_several_that_are_named(gex, model, tmp_path):
    data = str(grouped(tmp_path / "data", ("channel", ["a"])))
    code, out, err = gex("embed", model, data, "-o", "v.parquet", "--workers", "0")
    assert code == 0, err
    assert "GRP is left out: the model was not trained on it" in err
    assert "IT: 4 rows" in out and "GRP" not in out
    named = ("--granularity", "IT", "--granularity", "LVST")
    code, out, err = gex("embed", model, data, "-o", "w.parquet", "--workers", "0", *named)
    assert code == 0 and "left out" not in err
    assert set(pq.read_table(tmp_path / "w.parquet")["granularity"].to_pylist()) == {"IT", "LVST"}
    (tmp_path / "lines.txt").write_text("a cat\n")
    code, _, err = gex("embed", model, "--texts", "lines.txt", "-o", "t.parquet", *named)
    assert code == 1 and "texts and files are read as one granularity; found 2: IT, LVST" in err


def test_embed_and_search_over_its_vectors_find_what_encoding_finds(gex, model, output, tmp_path):
    code, out, err = gex("embed", model, output, "-o", "vectors.parquet", "--workers", "0")
    assert code == 0, err
    assert "LVLT: 6 rows" in out and "IT: 6 rows" in out
    assert pq.read_table(tmp_path / "vectors.parquet").num_rows == 18
    arguments = ("search", model, "half 0 of 3", output, "--granularity", "LVLT", "-n", "3", "--json")
    first = json.loads(gex(*arguments, "--vectors", "vectors.parquet", "-o", "found")[1])
    second = json.loads(gex(*arguments, "--workers", "0")[1])
    assert len(first["matches"]) == 3 and second["sheet"] is None
    assert [row["key"] for row in first["matches"]] == [row["key"] for row in second["matches"]]
    assert [row["score"] for row in first["matches"]] == sorted(
        (row["score"] for row in first["matches"]), reverse=True
    )
    assert first["sheet"] == str(tmp_path / "found" / "search.png") and Path(first["sheet"]).stat().st_size > 1000


def test_search_prints_a_table(gex, model, output):
    code, out, _ = gex("search", model, "a cat", output, "--granularity", "IT", "-n", "2")
    assert code == 0 and "rank" in out and "a picture of" in out


def test_search_refuses_vectors_of_another_model_or_data_set(gex, model, output, tmp_path):
    gex("embed", model, output, "--granularity", "IT", "-o", "vectors.parquet")
    other = make_numbered_output(tmp_path / "other", 2)
    another = write_tiny_model(tmp_path / "another", Path(model).parent / "clip", seed=4)
    for arguments, message in {
        (model, "a cat", str(other), "--granularity", "IT"): "another data set, or of another state of this one",
        (str(another), "a cat", output, "--granularity", "IT"): "vectors of another model",
        (model, "a cat", output, "--granularity", "LVLT"): "no vectors of LVLT, only of IT",
        (model, "a cat", output): "there are 3 granularities; name one with --granularity: LVLT, LVST, IT",
        (model, " ", output, "--granularity", "IT"): "expected a text that is not empty",
    }.items():
        code, _, err = gex("search", *arguments, "--vectors", "vectors.parquet")
        assert code == 1 and message in err


def test_embed_takes_texts_and_files(gex, model, tmp_path):
    (tmp_path / "texts.txt").write_text("a cat\n\n half 0 of 1 \n", encoding="utf-8")
    Image.new("RGB", (40, 40), (200, 0, 0)).save(tmp_path / "red.png")
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    code, out, _ = gex("embed", model, "--texts", "texts.txt", "--granularity", "LVST", "-o", "t.parquet")
    assert code == 0 and "texts: 2 rows" in out
    assert pq.read_table(tmp_path / "t.parquet")["text"].to_pylist() == ["a cat", "half 0 of 1"]
    files = ("--videos", "red.png", "bad.mp4", "--granularity", "IT")
    code, out, err = gex("embed", model, *files, "-o", "f.parquet")
    assert code == 0 and "files: 1 rows, 1 left out" in out and "bad.mp4 is left out" in err


def test_embed_reads_texts_and_files_as_a_granularity_of_the_paper_that_the_model_does_not_know(gex, model, tmp_path):
    (tmp_path / "texts.txt").write_text("a cat\n", encoding="utf-8")
    make_clip(tmp_path / "clip.mp4", 1, Make(size_px=(96, 96)))
    code, out, err = gex("embed", model, "--texts", "texts.txt", "--granularity", "SVST", "-o", "t.parquet")
    assert code == 0, err
    metadata = json.loads(pq.read_schema(tmp_path / "t.parquet").metadata[b"gex.vectors"])
    facts = metadata["granularities"]["SVST"]
    assert (facts["num_frames"], facts["n_iter_video"], facts["n_iter_text"]) == (16, 1, 1)
    code, out, err = gex("embed", model, "--videos", "clip.mp4", "--granularity", "SVST", "-o", "f.parquet")
    assert code == 0 and "files: 1 rows" in out, err


def test_embed_takes_only_a_line_feed_for_the_end_of_a_line(gex, model, tmp_path):
    """Captions hold other breaks; each of them made a row more, and rows no longer matched the lines of the file."""
    lines = ["one\u2028two", "three\x85four", "five\x0csix", "seven\x1eeight", "nine"]
    (tmp_path / "texts.txt").write_bytes("\r\n".join(lines).encode())
    code, out, err = gex("embed", model, "--texts", "texts.txt", "--granularity", "LVST", "-o", "t.parquet")
    assert code == 0 and "texts: 5 rows" in out, err
    assert pq.read_table(tmp_path / "t.parquet")["text"].to_pylist() == lines


def test_embed_says_what_is_wrong_in_a_sentence(gex, model, output, tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    for arguments, message in {
        (model, "-o", "v.parquet"): "name what to embed",
        (model, output, "--texts", "t.txt", "-o", "v.parquet"): "name what to embed",
        (model, output, "-o", "v"): "expected the name of a .parquet file",
        (model, output, "--granularity", "X", "-o", "v.parquet"): "has no granularity 'X'",
        (model, "--texts", "empty.txt", "-o", "v.parquet"): "there are 3 granularities",
        (model, "--texts", "empty.txt", "--granularity", "X", "-o", "v.parquet"): "not trained on granularity 'X'",
        (model, "--texts", "empty.txt", "--granularity", "IT", "-o", "v.parquet"): "holds no text",
        (model, "--videos", "bad.mp4", "--granularity", "IT", "-o", "v.parquet"): "none of 1 files can be read",
    }.items():
        code, _, err = gex("embed", *arguments)
        assert code == 1 and message in err
    assert not (tmp_path / "v.parquet").exists()
    with pytest.raises(SystemExit):
        gex("embed", model, output, "-o", "v.parquet", "--workers", "-1")


@pytest.mark.parametrize("name", ["align", "cost", "embed", "search"])
def test_help_has_an_example_and_loads_no_torch_and_what_lacks_is_named(name, tmp_path):
    program = (
        "import sys\nsys.modules['torch'] = None\nfrom gex_pipeline.cli.main import main\n"
        "try:\n    main([sys.argv[1], '--help'])\nexcept SystemExit:\n    pass\n"
        "needed = {'align': 'm d k', 'cost': '', 'embed': 'm d -o v.parquet', 'search': 'm t d'}[sys.argv[1]]\n"
        "sys.exit(main([sys.argv[1], *needed.split()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, name], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )
    assert f"example:\n  gex {name} " in done.stdout
    assert done.returncode == 1
    assert done.stderr == "gex: torch is not installed; in GEX's folder: pip install -c constraints.txt -e '.[train]'\n"
