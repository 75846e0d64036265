"""The guard and the checkpoint on two processes, started once."""

from __future__ import annotations

import math

import pytest
import torch

from tests.trainer.training import SEED, Training, run_ranks
from trainer.checkpoint import Checkpoints
from trainer.checkpoint_files import read_index
from trainer.random_state import derive_random_state


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def ranks(folder):
    return run_ranks(folder)


def test_a_step_that_one_rank_cannot_take_is_skipped_by_all(ranks):
    for found in ranks:
        assert not torch.equal(found["guard/after_0"], torch.zeros(2))
        assert torch.equal(found["guard/after_1"], found["guard/after_0"])
        assert not torch.equal(found["guard/after_2"], found["guard/after_1"])
        assert found["guard/skipped"] == 3
    for step in range(5):
        assert torch.equal(ranks[0][f"guard/after_{step}"], ranks[1][f"guard/after_{step}"])


def test_the_loss_is_the_mean_over_ranks_and_all_stop_together(ranks):
    for found in ranks:
        assert found["guard/losses"][0] == 0.5
        assert found["guard/losses"][1] == math.inf
        assert found["guard/stopped_at"] == 4
        assert found["guard/says_steps_3_to_4"]


def test_what_one_rank_could_not_read_is_named_to_all(ranks):
    assert [found["gathered"] for found in ranks] == [[{"key": "sample 1"}, {"key": "sample 1"}]] * 2


def test_what_is_made_once_a_machine_is_there_on_both_ranks_and_so_is_why_it_cannot_be_made(ranks):
    assert [found["made"] for found in ranks] == [{"by": 0}] * 2
    assert [found["not made"] for found in ranks] == ["TransientError: the store is away for rank 0"] * 2


def test_every_rank_goes_on_with_its_own_random_numbers_and_the_weights_of_rank_0(ranks):
    for found in ranks:
        assert found["resume/step"] == 3
        assert torch.equal(found["resume/draws"], found["resume/expected_draws"])
        assert torch.equal(found["resume/first.weight"], ranks[0]["resume/first.weight"])
    assert not torch.equal(ranks[0]["resume/draws"], ranks[1]["resume/draws"])


def test_on_another_number_of_ranks_all_but_the_random_states_is_restored_and_those_follow_from_seed_and_step(
    ranks, folder
):
    checkpoints = Checkpoints(str(folder / "checkpoints"))
    assert read_index(checkpoints.uri_of(3))["world_size"] == 2
    draws = []
    for init_seed in (1, 2):
        training = Training(init_seed)
        progress = checkpoints.resume(training.state)
        assert progress.step == 3
        assert torch.equal(training.model.first.weight, ranks[0]["resume/first.weight"])
        assert training.optimiser.adamw.state[training.model.first.weight]["step"] == 3
        draws.append(training.everything()["draws"])
    derive_random_state(SEED, 3, 0)
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0], Training.everything(training)["draws"])
    derive_random_state(SEED, 3, 1)
    assert not torch.equal(draws[0], training.everything()["draws"])
