"""``gex eval`` as a person runs it: a tiny model, a numbered data set, small files of public ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gex_pipeline.cli.main import main
from gex_pipeline.stages import models
from tests.media.making_clips import Make, make_clip
from tests.trainer.annotations.real_formats import CHARADES_CLASSES, COIN_ENTRY, written
from tests.trainer.conftest import TEXTS, write_tiny_model
from tests.trainer.outputs import make_numbered_output
from tests.validate.tiny_clip import write_tiny_clip

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    return str(write_tiny_model(folder / "model", write_tiny_clip(folder / "clip", TEXTS)))


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> str:
    return str(make_numbered_output(tmp_path_factory.mktemp("numbered"), 6))


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("media")
    for number in range(3):
        make_clip(folder / f"v{number}.mp4", number, Make(size_px=(96, 96)))
    return str(folder)


@pytest.fixture
def gex(capsys, tmp_path, monkeypatch):
    """Run `gex eval` without workers in an empty folder; its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(["eval", *arguments, "--workers", "0"])
        except SystemExit as end:  # argparse ends by itself
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run


def test_retrieval_is_a_table_with_a_row_a_direction_and_says_how_it_was_read(gex, model, output):
    code, out, err = gex(model, output, "--granularity", "LVLT", "--granularity", "IT")
    assert code == 0, err
    rows = [line.split() for line in out.splitlines() if " to " in line and line.strip()[:2] in ("LV", "IT")]
    assert [row[:4] for row in rows] == [
        ["LVLT", "text", "to", "video"],
        ["LVLT", "video", "to", "text"],
        ["IT", "text", "to", "video"],
        ["IT", "video", "to", "text"],
    ]
    assert all(row[-3:] == ["17", "6", "6"] for row in rows)
    assert "LVLT: 6 samples, 0 unreadable, frames 4, #iter 3-3 (as trained), ties: average" in out
    assert "IT: 6 samples, 0 unreadable, frames 1, #iter 0-1 (as trained)" in out
    assert "encode LVLT" in err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--n-iter-video", "5"), "frames 4, #iter 5-3 (#iter of videos given, the rest as trained)"),
        (("--num-frames", "2", "--n-iter-text", "1"), "frames 2, #iter 3-1 (frames, #iter of texts given, the rest as"),
        (("--num-frames", "2", "--n-iter-video", "5", "--n-iter-text", "1"), "frames 2, #iter 5-1 (as given)"),
    ],
)
def test_numbers_that_were_given_are_not_told_as_those_of_the_training(gex, model, output, flags, told):
    """Every line of a sweep over #iter said "as trained" or "the paper's numbers"."""
    code, out, err = gex(model, output, "--granularity", "LVLT", *flags)
    assert code == 0, err
    assert f"LVLT: 6 samples, 0 unreadable, {told}" in out


def test_images_that_a_model_was_not_trained_on_are_told_with_what_the_paper_has_for_it(gex, model, output, tmp_path):
    """Read with #iter 0-1 as the paper's, which has that after a stage on images only."""
    shutil.copytree(model, tmp_path / "videos-only")
    file = tmp_path / "videos-only" / "config.json"
    config = json.loads(file.read_text())
    del config["granularities"]["IT"]
    file.write_text(json.dumps(config))
    arguments = ("videos-only", output, "--granularity", "IT")
    code, out, err = gex(*arguments)
    assert code == 0, err
    assert "#iter 0-1 (the paper's numbers of IT)" in out
    assert "the model was trained on no images: the paper reads them with #iter 0-1 after a stage on images" in out
    out = gex(*arguments, "--n-iter-video", "1", "--num-frames", "9")[1]
    assert "frames 1, #iter 1-1 (#iter of videos given, the rest the paper's numbers of IT)" in out
    assert "trained on no images" not in out
    assert "trained on no images" not in gex(model, output, "--granularity", "IT")[1]


def test_chance_of_one_candidate_is_a_hundred_and_not_1e02(gex, model, output):
    code, out, err = gex(model, output, "--granularity", "IT", "--max-samples", "1")
    assert code == 0, err
    assert [line.split()[-3:] for line in out.splitlines() if line.strip().startswith("IT") and " to " in line] == [
        ["100", "1", "1"]
    ] * 2


def test_json_holds_figures_and_what_is_needed_to_have_them_again(gex, model, output):
    arguments = (model, output, "--granularity", "LVST", "--n-iter-video", "5", "--n-iter-text", "1", "--json")
    code, out, err = gex(*arguments)
    assert code == 0, err
    found = json.loads(out)
    (evaluation,) = found["evaluations"]
    assert evaluation["read"] == {
        "granularity": "LVST",
        "num_frames": 3,
        "n_iter_video": 5,
        "n_iter_text": 1,
        "image_size_px": 32,
        "origin": "model",
        "given": ["n_iter_video", "n_iter_text"],
    }
    assert (found["model"], len(found["model_sha256"])) == (model, 64)
    assert evaluation["data"] == {
        "dataset": output,
        "snapshot": 0,
        "granularity": "LVST",
        "part": "all",
        "num_in_part": 6,
    }
    assert evaluation["options"]["ties"] == evaluation["figures"]["text_to_video"]["ties"] == "average"
    again = json.loads(gex(*arguments)[1])["evaluations"][0]
    assert again["figures"] == evaluation["figures"]
    other = json.loads(gex(*arguments[:4], "--n-iter-video", "0", "--json")[1])["evaluations"][0]
    assert other["figures"] != evaluation["figures"]


def test_unreadable_samples_are_named_and_counted(gex, model, tmp_path):
    output = make_numbered_output(tmp_path / "data", 6)
    row = pq.read_table(output / "IT" / "IT-000000.parquet").to_pylist()[1]
    with (output / row["media_uri"]).open("r+b") as tar:
        tar.seek(row["media_offset_bytes"])
        tar.write(bytes(row["media_size_bytes"]))
    code, out, err = gex(model, str(output), "--granularity", "IT")
    assert code == 0
    assert f"{row['key']} is left out: an image cannot be decoded" in err
    assert "IT: 5 samples, 1 unreadable" in out


def trained_on(model: str, folder: Path, facts: dict) -> str:
    """A copy of the model that says this of its training."""
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "trained": facts}))
    return str(folder)


def test_what_training_held_out_is_measured_unless_another_share_is_given(gex, model, output, tmp_path):
    facts = {"data": f"{output}/../{Path(output).name}", "held_out_share": 0.5, "held_out_seed": 1}
    folder = trained_on(model, tmp_path / "trained", facts)
    code, out, err = gex(folder, output, "--granularity", "IT")
    assert code == 0, err
    assert "only held-out sources: share 0.5, seed 1" in out
    code, out, err = gex(folder, output, "--granularity", "IT", "--held-out", "0")
    assert "IT: 6 samples" in out
    assert "only held-out" not in out


def test_what_training_held_out_of_an_annotation_file_is_measured_unless_another_share_is_given(
    gex, model, media, tmp_path
):
    csv = written(tmp_path / "test.csv", "video_id,sentence\n" + "".join(f"v{n},half {n}\n" for n in range(3)))
    annotations = {"kind": "msrvtt", "file": str(csv), "media": media}
    facts = {"data": "msrvtt", "annotations": annotations, "held_out_share": 0.5, "held_out_seed": 0}
    folder = trained_on(model, tmp_path / "trained", facts)
    arguments = (folder, "test.csv", "--annotations", "msrvtt", "--media", media)
    code, out, err = gex(*arguments)
    assert code == 0, err
    assert "only held-out sources: share 0.5, seed 0" in out
    (held_out,) = json.loads(gex(*arguments, "--json")[1])["evaluations"]
    assert held_out["data"]["part"] == "held out"
    assert 1 <= held_out["num_samples"] < 3
    code, out, err = gex(*arguments, "--held-out", "0")
    assert "msrvtt: 3 samples" in out
    assert "only held-out" not in out
    code, out, err = gex(*arguments, "--held-out", "0.9", "--held-out-seed", "2")
    assert "only held-out sources: share 0.9, seed 2" in out


def test_a_public_data_set(gex, model, media, tmp_path):
    csv = written(tmp_path / "test.csv", "key,video_id,sentence\nr0,v0,a cat\nr1,v1,in short\nr2,v2,of\nr3,gone,x\n")
    code, out, err = gex(model, str(csv), "--annotations", "msrvtt", "--media", media, "--num-frames", "2")
    assert code == 0, err
    assert (
        "msrvtt: 3 samples, 0 unreadable, frames 2, #iter 1-1 (frames given, the rest the paper's numbers of SVST)"
        in out
    )
    assert "test.csv: 3 of 4 entries used; 1 without media: gone" in out


def test_coin_is_measured_over_whole_videos_or_the_part_that_shows_the_task(gex, model, media, tmp_path):
    database = {f"v{n}": {**COIN_ENTRY, "subset": "testing", "start": 0.0, "end": 0.1} for n in range(3)}
    file = written(tmp_path / "COIN.json", {"database": database})
    arguments = (model, str(file), "--annotations", "coin", "--media", media, "--num-frames", "2")
    for flags, trim in (((), False), (("--trim",), True), (("--no-trim",), False)):
        code, out, err = gex(*arguments, *flags)
        assert code == 0, err
        assert ("only the part that shows its task" in out) is trim


def test_classes_by_prompts_of_a_file(gex, model, media, tmp_path):
    classes = written(tmp_path / "classes.txt", CHARADES_CLASSES)
    videos = written(tmp_path / "videos.csv", "id,actions\nv0,c000 0 1\nv1,c001 0 1\nv2,c002 0 1\n")
    templates = written(tmp_path / "templates.txt", "# ours\nhalf of {label}\n")
    arguments = ("--annotations", "charades-ego", "--media", media, "--class-names", str(classes))
    code, out, err = gex(model, str(videos), *arguments, "--templates", str(templates), "--num-frames", "2")
    assert code == 0, err
    assert "map percent" in out
    assert "videos are ranked for every class" in out
    written(templates, "no label\n")
    code, out, err = gex(model, str(videos), *arguments, "--templates", str(templates))
    assert (code, out) == (1, "")
    assert "templates.txt, line 1: 'no label' is no template" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--media", "m"), "--media goes with --annotations only"),
        (("--templates", "t", "--span-s", "5"), "--span-s, --templates goes with --annotations only"),
        (("--annotations", "msrvtt"), "--annotations msrvtt needs --media"),
        (("--annotations", "charades-ego", "--media", "m"), "--annotations charades-ego needs --class-names"),
        (("--annotations", "lsmdc", "--media", "m", "--subset", "s"), "--subset does not go with --annotations lsmdc"),
        (("--annotations", "lsmdc", "--media", "m", "--templates", "t"), "--templates does not go with --annotations"),
        (("--annotations", "coin", "--media", "m", "--span-s", "5"), "--span-s does not go with --annotations coin"),
        (("--annotations", "lvu", "--media", "m", "--no-trim"), "--trim does not go with --annotations lvu"),
        (("--annotations", "coin", "--media", "m", "--subset", "test"), "COIN has no subset 'test'; expected training"),
        (("--annotations", "folders", "--snapshot", "0"), "--snapshot does not go with --annotations folders"),
        (("--annotations", "folders", "--granularity", "A", "--granularity", "B"), "takes one --granularity"),
        (("--annotations", "kinetics"), "invalid choice: 'kinetics'"),
        (("--num-frames", "0"), "expected a whole number from 1 on, not '0'"),
        (("--n-iter-video", "-1"), "expected a whole number from 0 on, not '-1'"),
        (("--held-out", "1"), "expected a number from 0 on and below 1, not '1'"),
        (("--annotations", "lvu", "--span-s", "0"), "expected a number above 0, not '0'"),
        (("--span-s", "much"), "expected a number above 0, not 'much'"),
        (("--ties", "best"), "invalid choice: 'best'"),
    ],
)
def test_wrong_usage_ends_with_2_and_a_sentence_before_anything_is_loaded(gex, flags, message):
    code, out, err = gex("nowhere", "nothing", *flags)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_what_is_not_there_ends_with_1_and_a_sentence(gex, model, output, tmp_path, media):
    for arguments, message in (
        (("nowhere", output), "no model at 'nowhere'"),
        ((model, "nothing"), "there is no dataset.json in it"),
        ((model, output, "--granularity", "XL"), "has no granularity 'XL'; published are"),
        ((model, output, "--snapshot", "9"), "has no snapshot 9"),
        ((model, "none.csv", "--annotations", "lsmdc", "--media", media), "none.csv cannot be read: No such file"),
        ((model, "none", "--annotations", "folders"), "expected one with a folder a class"),
        ((model, output, "--annotations", "msrvtt", "--media", media), "cannot be read: Is a directory"),
    ):
        code, out, err = gex(*arguments)
        assert (code, out) == (1, ""), arguments
        assert message in err
        assert "Traceback" not in err


def test_without_torch_it_says_what_to_install(gex, model, output, monkeypatch):
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    code, _, err = gex(model, output)
    assert code == 1
    assert "torch is not installed; in GEX's folder: pip install -c constraints.txt -e '.[train]'" in err


def test_its_help_shows_an_example_and_parsing_loads_no_torch():
    program = (
        "import sys\nfrom gex_pipeline.cli.main import main\nimport gex_pipeline.cli.eval\n"
        "try:\n    main(['eval', '--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "print([name for name in ('torch', 'transformers', 'av', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT, check=True
    )
    assert "gex eval training MSRVTT_JSFUSION_test.csv --annotations msrvtt --media videos" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
