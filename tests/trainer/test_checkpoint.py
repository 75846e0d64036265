from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import shutil
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
import torch

from gex_pipeline.errors import FileMissingError, GexError
from tests.faults.faulty_store import Fault
from tests.trainer.training import SEED, Training
from trainer.checkpoint import Checkpoints, load_weights
from trainer.checkpoint_files import DamagedCheckpointError, read_index, verify

FILES = ["ema.safetensors", "index.json", "model.safetensors", "optimiser.safetensors", "rng.safetensors"]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def saved(root, *steps, **options):
    """A training that saved at these steps."""
    checkpoints, training, done = Checkpoints(str(root), **options), Training(), 0
    for step in steps:
        training.steps(done, step)
        checkpoints.save(training.state, training.progress(step))
        done = step
    return checkpoints, training


@pytest.mark.parametrize("ema", [True, False])
def test_a_training_that_goes_on_is_equal_to_the_bit(tmp_path, ema):
    checkpoints, whole = Checkpoints(str(tmp_path)), Training(ema=ema)
    whole.steps(0, 5)
    checkpoints.save(whole.state, whole.progress(5, metrics={"r1": 0.25, "loss": math.nan}))
    losses = whole.steps(5, 10)
    expected = whole.everything()

    resumed = Training(99, ema=ema)
    progress = checkpoints.resume(resumed.state)
    resumed.optimiser.restore_counters(progress.counters)
    assert progress == whole.progress(5, metrics={"r1": 0.25})
    assert resumed.steps(5, 10) == losses
    found = resumed.everything()
    assert found.keys() == expected.keys()
    assert "norm.running_mean" in found
    assert "unused/exp_avg" not in found
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def test_the_comparison_sees_random_numbers_that_were_not_restored(tmp_path):
    checkpoints, whole = saved(tmp_path, 5)
    resumed = Training(99)
    checkpoints.resume(resumed.state)
    torch.manual_seed(99)
    assert resumed.steps(5, 10) != whole.steps(5, 10)


def test_a_checkpoint_is_safetensors_and_json_and_nothing_else_is_left_beside_it(tmp_path):
    checkpoints, _ = saved(tmp_path, 2)
    assert names_in(tmp_path) == ["step-000000002"]
    assert names_in(tmp_path / "step-000000002") == FILES
    index = verify(checkpoints.uri_of(2))
    assert (index["progress"]["step"], index["progress"]["recipe"]) == (2, {"name": "tiny"})
    assert sorted(index["files"]) == [name for name in FILES if name != "index.json"]


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(tmp_path):
    training = Training()
    before = training.everything()
    empty = Checkpoints(str(tmp_path / "none"))
    assert (empty.resume(training.state), empty.latest(), empty.best(), empty.steps()) == (None, None, None, [])
    assert torch.equal(training.everything()["first.weight"], before["first.weight"])


def cut(file):
    file.write_bytes(file.read_bytes()[:-7])


def flip(file):
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def edit(file):
    file.write_text(file.read_text().replace(f'"seed": {SEED}', f'"seed": {SEED + 1}'))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("model.safetensors", cut, r"model.safetensors has \d+ bytes, \d+ were written"),
        ("optimiser.safetensors", flip, "the bytes of optimiser.safetensors are not those"),
        ("rng.safetensors", lambda file: file.unlink(), "rng.safetensors is missing"),
        ("index.json", cut, "index.json cannot be read"),
        ("index.json", edit, "index.json is not what was written"),
    ],
)
def test_a_damaged_checkpoint_is_refused_in_one_line_and_the_one_before_it_taken(
    tmp_path, caplog, name, damage, message
):
    checkpoints, _ = saved(tmp_path, 2, 4)
    damage(tmp_path / "step-000000004" / name)
    with pytest.raises(DamagedCheckpointError, match=message):
        verify(checkpoints.uri_of(4))
    assert (checkpoints.steps()[-1], checkpoints.latest()) == (4, 2)
    caplog.clear()
    assert checkpoints.resume(Training(9).state).step == 2
    assert len(caplog.messages) == 1
    assert "step-000000004' is damaged" in caplog.messages[0]
    assert "taking the checkpoint before it" in caplog.messages[0]


def test_only_damaged_checkpoints_stop_the_training_rather_than_start_it_anew(tmp_path):
    checkpoints, _ = saved(tmp_path, 2)
    flip(tmp_path / "step-000000002" / "ema.safetensors")
    with pytest.raises(GexError, match=r"no checkpoint under .* is whole; remove them to start anew"):
        checkpoints.resume(Training().state)


def test_a_save_that_fails_leaves_the_last_one_and_nothing_torn(tmp_path):
    checkpoints, training = saved(tmp_path, 2)
    progress = training.progress(4)
    progress.recipe["not json"] = {1, 2}
    with pytest.raises(TypeError, match="not JSON serializable"):
        checkpoints.save(training.state, progress)
    assert names_in(tmp_path) == ["step-000000002"]


class Ended(BaseException):
    """In the middle of a save."""


def contents(root):
    """The names in every checkpoint's folder."""
    return {path.name: names_in(path) for path in root.glob("step-*")}


def save_cut_short(root, training, num_calls):
    """Save, and end it after so many calls of the operating system; the contents just then, None: it had its way."""
    calls, found = count(), None

    def before_a_call(_frame, event, function):
        nonlocal found
        is_call = event == "c_call" and getattr(function, "__module__", "") == "posix" and function is not os.fspath
        if is_call and next(calls) == num_calls:
            found = contents(root)
            raise Ended  # with it Python lets go of this function

    progress = training.progress(4)
    sys.setprofile(before_a_call)
    with suppress(Ended):
        try:
            Checkpoints(str(root)).save(training.state, progress)
        finally:
            sys.setprofile(None)
    return found


@pytest.mark.parametrize("before", [[2], [2, 4]])
def test_a_save_that_ends_anywhere_leaves_every_checkpoint_whole_or_not_there_and_the_next_save_succeeds(
    tmp_path, before
):
    """What is there at that moment is what a kill leaves, what is there afterwards what an interrupt does."""
    _, training = saved(tmp_path / "start", *before)
    steps_after = []
    for num_calls in count():
        root = Path(shutil.copytree(tmp_path / "start", tmp_path / str(num_calls)))
        at_the_end = save_cut_short(root, training, num_calls)
        if at_the_end is None:
            break
        for found in (at_the_end, contents(root)):
            assert found["step-000000002"] == FILES
            assert found.get("step-000000004", FILES) == FILES
        checkpoints = Checkpoints(str(root))
        steps_after.append(checkpoints.steps())
        assert checkpoints.latest() == steps_after[-1][-1]
        checkpoints.save(training.state, training.progress(4))
        assert (checkpoints.latest(), names_in(root)) == (4, ["step-000000002", "step-000000004"])
    assert {tuple(steps) for steps in steps_after} == {(2,), (2, 4)}


def test_what_a_killed_process_left_is_no_checkpoint_and_goes_with_the_next_save(tmp_path):
    checkpoints, training = saved(tmp_path, 2)
    (tmp_path / ".checkpoint-x1" / "step-000000003").mkdir(parents=True)
    (tmp_path / "step-000000001").mkdir()
    (tmp_path / "step-000000001" / "model.safetensors").write_bytes(b"torn")
    assert checkpoints.steps() == [2]
    checkpoints.save(training.state, training.progress(4))
    assert names_in(tmp_path) == ["step-000000002", "step-000000004"]


@pytest.mark.parametrize(("higher_is_better", "best"), [(True, 1), (False, 2)])
def test_the_newest_and_the_best_are_kept(tmp_path, higher_is_better, best):
    checkpoints = Checkpoints(str(tmp_path), keep=2, metric="r1", higher_is_better=higher_is_better)
    training = Training()
    for step, value in enumerate([0.9, 0.1, math.nan, 0.5, 0.9, 0.1], 1):
        checkpoints.save(training.state, training.progress(step, metrics={"r1": value}))
    assert checkpoints.best() == best
    assert checkpoints.steps() == [best, 5, 6]
    assert Checkpoints(str(tmp_path)).best() is None
    with pytest.raises(ValueError, match="keep is 0"):
        Checkpoints(str(tmp_path), keep=0)


def test_checkpoints_of_a_course_that_was_left_are_removed_by_the_next_save(tmp_path, caplog):
    """Otherwise the next resume would take up the damaged or abandoned ones again."""
    checkpoints, _ = saved(tmp_path, 2, 4, 6)
    training = Training(3)
    assert checkpoints.load(2, training.state).step == 2
    training.steps(2, 4)
    weight = training.model.first.weight.detach().clone()
    checkpoints.save(training.state, training.progress(4))
    assert checkpoints.steps() == [2, 4]
    assert "step-000000006' is later than step 4" in caplog.text
    resumed = Training(5)
    checkpoints.resume(resumed.state)
    assert torch.equal(resumed.model.first.weight, weight)


@pytest.mark.parametrize("metric", [None, "r1"])
def test_of_a_course_that_was_left_the_best_goes_too_and_no_later_one_counts_among_the_newest(tmp_path, metric):
    training = Training()
    before = Checkpoints(str(tmp_path), keep=9)
    for step, value in ((1, 0.1), (2, 0.2), (5, 0.9), (6, 0.5)):
        before.save(training.state, training.progress(step, metrics={"r1": value}))
    checkpoints = Checkpoints(str(tmp_path), keep=2, metric=metric)
    checkpoints.save(training.state, training.progress(3, metrics={"r1": 0.1}))
    assert checkpoints.steps() == [2, 3]
    assert checkpoints.best() == (2 if metric else None)


def test_another_model_is_refused_with_the_first_difference_and_left_as_it_was(tmp_path):
    checkpoints, _ = saved(tmp_path, 2)
    wider = Training(width=9)
    before = wider.everything()
    sentence = r"first\.weight is of shape \(8, 6\) in the checkpoint and of shape \(9, 6\) here"
    with pytest.raises(GexError, match=sentence):
        checkpoints.resume(wider.state)
    assert torch.equal(wider.everything()["second.bias"], before["second.bias"])
    more = Training()
    more.model.head = torch.nn.Linear(2, 2)
    with pytest.raises(GexError, match=r"head\.weight is missing in the checkpoint and of shape \(2, 2\) here"):
        checkpoints.resume(more.state)
    less = Training()
    del less.model.unused
    with pytest.raises(GexError, match=r"unused is of shape \(2,\) in the checkpoint and missing here"):
        load_weights(checkpoints.uri_of(2), less.model)


def test_moments_of_what_is_frozen_now_are_refused(tmp_path):
    checkpoints, _ = saved(tmp_path, 2)
    training = Training()
    del training.optimiser.adamw.param_groups[0]
    with pytest.raises(GexError, match=r"has an optimiser state of first\.weight, which is frozen"):
        checkpoints.resume(training.state)


def test_an_average_starts_at_the_weights_where_there_was_none_and_is_dropped_where_none_is_wanted(tmp_path, caplog):
    with_average, _ = saved(tmp_path / "a", 2)
    with_average.resume(Training(ema=False).state)
    assert "has an average of weights, which this training does not go on with" in caplog.text
    plain = Training(ema=False)
    without = Checkpoints(str(tmp_path / "b"))
    without.save(plain.state, plain.progress(2))
    training = Training(8)
    without.resume(training.state)
    assert "has no average of weights; it starts at the weights of this step" in caplog.text
    assert torch.equal(training.ema.state_dict()["first.weight"], plain.model.first.weight)
    with pytest.raises(GexError, match="has no average of weights; it was trained without ema_decay"):
        load_weights(without.uri_of(2), training.model, averaged=True)


def test_an_average_goes_on_with_the_share_that_it_had_come_to_and_not_without_its_number(tmp_path):
    checkpoints, whole = saved(tmp_path, 5)
    resumed = Training(99)
    checkpoints.resume(resumed.state)
    assert (resumed.ema.num_updates, whole.ema.num_updates) == (5, 5)
    sign(tmp_path / "step-000000005", lambda index: index.pop("average"))
    with pytest.raises(GexError, match="step-000000005' does not say how often its average was moved; this version"):
        checkpoints.resume(Training(99).state)


def test_a_model_is_filled_with_the_weights_or_with_their_average(tmp_path):
    checkpoints, trained = saved(tmp_path, 4)
    model = Training(8).model
    load_weights(checkpoints.uri_of(4), model)
    assert torch.equal(model.first.weight, trained.model.first.weight)
    load_weights(checkpoints.uri_of(4), model, averaged=True)
    assert torch.equal(model.first.weight, trained.ema.state_dict()["first.weight"])
    assert torch.equal(model.norm.running_var, trained.model.norm.running_var)
    assert not torch.equal(model.first.weight, trained.model.first.weight)
    with pytest.raises(FileMissingError):
        load_weights(checkpoints.uri_of(5), model)


def sign(folder, change):
    """Change the index of a checkpoint, as a version that writes it so would have it."""
    index = json.loads((folder / "index.json").read_text())["index"]
    change(index)
    digest = hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()
    (folder / "index.json").write_text(json.dumps({"sha256": digest, "index": index}))


def test_a_checkpoint_that_says_more_of_its_training_is_gone_on_from(tmp_path):
    """Versions before wrote the step a second time."""
    checkpoints, training = saved(tmp_path, 2)
    sign(tmp_path / "step-000000002", lambda index: index["progress"].update(data_position=2))
    assert checkpoints.resume(Training(5).state) == training.progress(2)


def test_a_checkpoint_of_another_format_is_refused(tmp_path):
    checkpoints, _ = saved(tmp_path, 2)
    sign(tmp_path / "step-000000002", lambda index: index.update(format=2))
    with pytest.raises(GexError, match="has format 2; this version reads format 1"):
        read_index(checkpoints.uri_of(2))


@pytest.fixture
def bucket(world):
    return world.make_bucket(f"training-{secrets.token_hex(4)}")


def test_on_an_object_store_a_save_that_fails_leaves_the_last_one_and_the_next_save_succeeds(world, bucket):
    """At the second of its files, and at the last."""
    checkpoints, training = saved(f"{bucket}/run", 2)
    progress = training.progress(4)
    for name in ("model.safetensors", "index.json"):
        refused = Fault("answer", "PUT", f"step-000000004/{name}", status=403, code="AccessDenied")
        with world.proxy.faults(refused), pytest.raises(GexError, match=r"step-000000004/.*the store denies access"):
            checkpoints.save(training.state, progress)
        assert refused.num_done == 1
        assert (checkpoints.steps(), checkpoints.latest()) == ([2], 2)
    checkpoints.save(training.state, progress)
    assert (checkpoints.steps(), checkpoints.latest()) == ([2, 4], 4)


def test_on_an_object_store_a_folder_without_its_index_is_no_checkpoint(bucket):
    from gex_pipeline import storage

    checkpoints, whole = saved(f"{bucket}/run", 2, 4, 5, keep=2)
    assert checkpoints.steps() == [4, 5]
    storage.remove(f"{checkpoints.uri_of(5)}/index.json")
    assert checkpoints.steps() == [4]
    resumed = Training(9)
    assert checkpoints.resume(resumed.state).step == 4
    resumed.steps(4, 5)
    assert torch.equal(resumed.model.first.weight, whole.model.first.weight)
    checkpoints.save(resumed.state, resumed.progress(6))
    folders = {file.uri.split("/")[-2] for file in storage.list_files(f"{bucket}/run/step-*/*")}
    assert folders == {"step-000000004", "step-000000006"}
    model = Training(3).model
    load_weights(checkpoints.uri_of(6), model)
    assert torch.equal(model.first.weight, whole.model.first.weight)
