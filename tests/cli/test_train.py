"""``gex train`` as a person runs it: exit codes, what stands on the two streams, and the extras that may be missing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gex_pipeline.cli.main import main
from tests.trainer.outputs import make_numbered_output
from tests.trainer.tiny_recipes import steps_of, tables_of, weights_of, write_recipe

ROOT = Path(__file__).parent.parent.parent
IMAGES = {"data": {"granularities": {"IT": {}}}, "optim": {"epochs": 1}}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return make_numbered_output(tmp_path_factory.mktemp("numbered"), 8)


@pytest.fixture
def gex(capsys, tmp_path, monkeypatch):
    """Run a command in an empty folder; its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        return code, *capsys.readouterr()

    return run


def test_a_training_ends_with_the_place_of_the_model(gex, dataset, tmp_path):
    recipe = write_recipe(tmp_path / "train.toml", tables_of(dataset, "training", IMAGES))
    code, out, err = gex("train", str(recipe))
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].endswith(f"; the model is at {tmp_path}/training/model")
    assert "step 1/" in out
    assert weights_of(tmp_path / "training")
    code, out, _ = gex("train", "train.toml")
    assert code == 0
    assert "nothing left to do: all steps are done" in out


def test_a_training_that_was_told_to_stop_does_not_end_with_the_code_of_one_that_is_done(gex, dataset, tmp_path):
    """It ended with 0, which Kubernetes, Slurm and scripts take for a trained model."""
    changes = {"data": {"granularities": {"IT": {}}}, "optim": {"epochs": 1000}}
    recipe = write_recipe(tmp_path / "train.toml", tables_of(dataset, "training", changes))
    over = threading.Event()

    def stop() -> None:
        while not steps_of(tmp_path / "training") and not over.wait(0.05):
            pass
        os.kill(os.getpid(), signal.SIGTERM if steps_of(tmp_path / "training") else 0)

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        code, _, err = gex("train", str(recipe))
    finally:
        over.set()
        thread.join()
    assert code == 75
    assert err == "gex: stopped, with a checkpoint; run the same command again to go on\n"


def test_a_template_is_printed_to_be_edited(gex, tmp_path):
    code, out, _ = gex("train", "--template", "pretraining")
    assert code == 0
    assert "learning_rate_towers = 1e-6" in out
    (tmp_path / "train.toml").write_text(out)
    code, _, err = gex("train", "train.toml")  # it is a recipe: what it lacks is the data
    assert code in (1, 2)
    assert "no data set is published at" in err
    code, _, err = gex("train", "--template", "pretraning")
    assert code == 2
    assert "no training recipe 'pretraning' comes with the package" in err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optim": {"learning_rte": 1}}, "train.toml: optim.learning_rte: unknown key; did you mean 'learning_rate'?"),
        ({"data": {"granularities": {"OWN": {}}}}, "num_frames"),
        ({"data": {"image_size_px": 50}}, "patch_px is 16, the side of a frame 50; the patches must divide it"),
    ],
)
def test_a_wrong_recipe_ends_with_code_2_and_one_sentence(gex, dataset, tmp_path, change, words):
    write_recipe(tmp_path / "train.toml", tables_of(dataset, "training", IMAGES, change))
    code, _, err = gex("train", "train.toml")
    assert code == 2
    assert words in err
    assert "Traceback" not in err


def test_a_recipe_that_is_corrected_after_it_was_refused_is_no_other_training(gex, dataset, tmp_path):
    """The first attempt had left its recipe in the output, and the corrected one was taken for another training's."""
    for size, expected in ((64, 1), (4, 0)):
        write_recipe(tmp_path / "train.toml", tables_of(dataset, "training", IMAGES, {"data": {"batch_size": size}}))
        code, _, err = gex("train", "train.toml")
        assert code == expected, err
        assert ("fewer than one batch of 64" in err) is bool(expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a training recipe or a published data set"),
        (["none.toml"], "training recipe 'none.toml' does not exist"),
        (["nowhere"], "'nowhere' is neither a training recipe nor a published data set"),
    ],
)
def test_what_is_not_there_is_named(gex, arguments, words):
    code, _, err = gex("train", *arguments)
    assert code == 2
    assert words in err


def test_a_data_set_that_is_not_there_is_named(gex, tmp_path):
    write_recipe(tmp_path / "train.toml", tables_of("nowhere", "training", IMAGES))
    code, _, err = gex("train", "train.toml")
    assert code in (1, 2)
    assert f"no data set is published at '{tmp_path}/nowhere'" in err


def test_a_clip_that_cannot_be_fetched_ends_with_a_sentence_that_says_what_to_do(gex, dataset, tmp_path):
    tables = tables_of(dataset, "training", IMAGES, {"model": {"towers": {"shape": None, "clip": "nobody/nothing"}}})
    write_recipe(tmp_path / "train.toml", tables)
    code, _, err = gex("train", "train.toml")
    assert code == 1
    assert "CLIP 'nobody/nothing' cannot be loaded" in err
    assert "Give a folder with a CLIP in [model.towers] clip, or a table [model.towers.shape]" in err
    assert "Traceback" not in err
    assert not (tmp_path / "training" / "checkpoints").exists()


def test_a_folder_with_half_a_clip_is_named(gex, dataset, tmp_path):
    """Without its tokenizer's files transformers makes one of an empty vocabulary, and all texts were the same."""
    from trainer.settings import ClipShape
    from trainer.small_clip import write_small_clip

    write_small_clip(tmp_path / "clip", ClipShape(patch_px=16, width=16, num_layers=1, num_heads=2), ["a"], 48)
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (tmp_path / "clip" / name).unlink(missing_ok=True)
    towers = {"shape": None, "clip": "clip", "weights": "random"}
    write_recipe(tmp_path / "train.toml", tables_of(dataset, "training", IMAGES, {"model": {"towers": towers}}))
    code, _, err = gex("train", "train.toml")
    assert code == 1
    assert "its tokenizer has 2 entries" in err
    assert "Traceback" not in err


def test_a_missing_package_is_named_with_its_extra(dataset, tmp_path):
    recipe = write_recipe(tmp_path / "train.toml", tables_of(dataset, "training", IMAGES))
    program = (
        "import sys, importlib.util as util\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch': raise ModuleNotFoundError(name)\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'torch' else find(name, *rest)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from gex_pipeline.cli.main import main\n"
        "sys.exit(main(['train', sys.argv[1]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(recipe)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
    )
    assert done.returncode in (1, 2), done.stderr
    assert "torch is not installed; in GEX's folder: pip install -c constraints.txt -e '.[train]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_published_data_set_takes_the_recipe_of_the_paper(gex, dataset):
    """No CLIP can be fetched here; what it would train is said before that."""
    code, out, err = gex("train", str(dataset))
    assert code == 1
    assert "openai/clip-vit-base-patch32" in err
    assert "LVLT: 8 samples, 1 step of 8 an epoch" in out
    assert json.loads((dataset / "dataset.json").read_text())["snapshots"]
