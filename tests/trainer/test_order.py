from __future__ import annotations

import pickle
import resource
import time

import numpy as np
import pytest

from gex_pipeline.errors import GexError
from trainer.order import Order, Part, permutation

SIZES = {"SVST": [40, 37, 0, 41, 39, 43], "LVLT": [30, 35], "IT": [16]}


def parts(sizes=None, **weights):
    sizes = SIZES if sizes is None else sizes
    return [Part(name, np.array(found), weights.get(name, 1.0)) for name, found in sizes.items()]


def make(sizes=None, batch_size=8, seed=3, window_shards=2, **weights):
    return Order(parts(sizes, **weights), batch_size=batch_size, seed=seed, window_shards=window_shards)


def taken(order, epoch, world_size=1):
    """Samples of an epoch by granularity, in the order of the steps and ranks."""
    found = {name: [] for name in order.num_batches}
    for step in range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch):
        batch = [index for rank in range(world_size) for index in order.batch_of(step, rank, world_size)]
        found[order.place_of(step).granularity] += batch
    return {name: np.array(indices) for name, indices in found.items()}


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_an_epoch_takes_every_sample_once_but_for_the_remainder_it_counts(world_size):
    order = make()
    for name, indices in taken(order, 0, world_size).items():
        assert len(set(indices.tolist())) == len(indices) == sum(SIZES[name]) - order.left_out[name]
        assert 0 <= indices.min() <= indices.max() < sum(SIZES[name])
    assert order.left_out == {"IT": 0, "LVLT": 1, "SVST": 0}
    assert order.steps_per_epoch == 2 + 8 + 25


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_ranks_cut_the_same_batch_so_any_number_of_them_sees_the_same_order(world_size):
    order = make()
    for step in (0, 7, order.steps_per_epoch + 3):
        whole = order.batch_of(step).tolist()
        assert [i for rank in range(world_size) for i in order.batch_of(step, rank, world_size)] == whole


def test_a_run_that_goes_on_at_a_step_with_other_ranks_takes_what_the_uninterrupted_one_takes():
    whole = make()
    uninterrupted = [whole.batch_of(step).tolist() for step in range(2 * whole.steps_per_epoch)]
    resumed = pickle.loads(pickle.dumps(make()))  # another process that never saw the steps before
    for step in range(11, 2 * whole.steps_per_epoch):
        assert [i for rank in range(4) for i in resumed.batch_of(step, rank, 4)] == uninterrupted[step]


def test_what_one_epoch_leaves_out_comes_in_the_next():
    order = make({"LVLT": [13, 9, 7]}, batch_size=10)
    first, second = taken(order, 0)["LVLT"], taken(order, 1)["LVLT"]
    missed = set(range(29)) - set(first.tolist())
    assert len(missed) == order.left_out["LVLT"] == 9
    assert missed <= set(second.tolist())


def test_two_epochs_and_two_seeds_differ_and_the_same_seed_does_not():
    order = make()
    first, second, other = taken(order, 0), taken(order, 1), taken(make(seed=4), 0)
    for name in ("SVST", "LVLT", "IT"):
        assert not np.array_equal(first[name], second[name])
        assert not np.array_equal(first[name], other[name])
        assert np.array_equal(first[name], taken(make(), 0)[name])


def test_the_order_is_the_same_one_for_ever():
    # if this fails, a run cannot be resumed with the new version: it would see other samples
    assert permutation(8, "window", 0, "SVST", 1).tolist() == [4, 3, 5, 2, 7, 6, 0, 1]
    assert make().batch_of(5).tolist() == [3, 2, 6, 4, 14, 13, 5, 15]


def test_the_order_does_not_depend_on_how_granularities_are_listed_nor_on_the_others():
    listed = Order(parts()[::-1], batch_size=8, seed=3, window_shards=2)
    assert [listed.place_of(s) for s in range(35)] == [make().place_of(s) for s in range(35)]
    alone = make({"LVLT": SIZES["LVLT"]})
    assert np.array_equal(taken(alone, 1)["LVLT"], taken(make(), 1)["LVLT"])


def test_granularities_alternate_in_proportion_to_their_sizes_at_every_point_of_an_epoch():
    order = make({"SVST": [10_000], "LVLT": [1_000], "LVST": [1_000]}, batch_size=10)
    names = [order.place_of(step).granularity for step in range(order.steps_per_epoch)]
    for name, share in (("SVST", 10 / 12), ("LVLT", 1 / 12), ("LVST", 1 / 12)):
        ahead = np.cumsum([found == name for found in names]) - share * np.arange(1, len(names) + 1)
        assert np.abs(ahead).max() < 2


def test_weights_change_proportions_and_the_heaviest_granularity_is_seen_once():
    order = make({"SVST": [1_000], "LVLT": [100]}, batch_size=10, LVLT=5.0)
    assert order.num_batches == {"LVLT": 10, "SVST": 20}
    assert order.left_out == {"LVLT": 0, "SVST": 800}
    seen = np.concatenate([taken(order, epoch)["SVST"] for epoch in range(5)])
    assert sorted(seen.tolist()) == list(range(1_000))  # five epochs go once around


def test_a_batch_lies_in_a_few_shards_and_mixes_them():
    order = make({"SVST": [100] * 50}, batch_size=20, window_shards=4)
    shards = [set((order.batch_of(step) // 100).tolist()) for step in range(order.steps_per_epoch)]
    assert max(map(len, shards)) <= 8  # two windows
    assert np.mean([len(found) for found in shards]) > 3


def test_a_stand_in_is_of_the_same_place_so_no_batch_gets_a_sample_twice():
    order = make()
    step = next(step for step in range(35) if order.place_of(step).granularity == "LVLT")
    found = [list(order.candidates(step, slot)) for slot in range(8)]
    assert [first for first, *_ in found] == order.batch_of(step).tolist()
    everything = [index for candidates in found for index in candidates]
    assert len(set(everything)) == len(everything) == 64


def test_in_an_epoch_of_one_batch_a_stand_in_is_the_next_sample():
    order = make({"IT": [9]})
    batch = order.batch_of(0).tolist()
    assert list(order.candidates(0, 6)) == batch[6:] + batch[:6]


def test_ten_million_samples_are_ordered_in_a_second_or_two_and_little_memory():
    sizes = {"SVST": [1_000] * 10_000, "LVLT": [100] * 10_000, "LVST": [100] * 10_000}
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started_s = time.process_time()
    order = make(sizes, batch_size=512, window_shards=16)
    for step in (*range(10), 12_345, 5 * order.steps_per_epoch - 1):
        assert len(order.batch_of(step, 3, 8)) == 64
    assert time.process_time() - started_s < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 50_000
    assert order.num_batches == {"LVLT": 1_953, "LVST": 1_953, "SVST": 19_531}  # the paper's data at its batch size


def test_a_batch_size_that_ranks_cannot_share_is_refused_with_those_they_can():
    with pytest.raises(GexError, match="batch size 8 cannot be divided among 3 ranks; set batch_size to 6 or 9"):
        make().batch_of(0, 0, 3)
    with pytest.raises(GexError, match="among 16 ranks; set batch_size to 16, or"):
        make().slots_of(0, 16)


@pytest.mark.parametrize(
    ("sizes", "weights", "message"),
    [
        (
            {"LVLT": [3, 4]},
            {},
            "LVLT has 7 samples to train on, fewer than one batch of 8; set batch_size to 7 or less",
        ),
        ({"LVLT": [0]}, {}, "LVLT has 0 samples to train on"),
        (
            {"LVLT": [20], "SVST": [80]},
            {"SVST": 10.0},
            "LVLT has 20 samples, of which its weight 1 beside the 10 of SVST takes 2 an",
        ),
        (
            {"ITL": [40], "LVLT": [12]},
            {"ITL": 2.0},
            "raise its weight, lower that of ITL or batch_size, or leave LVLT out",
        ),
        ({}, {}, "no granularity is given"),
    ],
)
def test_too_few_samples_for_a_batch_are_refused_with_what_to_set(sizes, weights, message):
    with pytest.raises(GexError, match=message):
        make(sizes, **weights)


def test_ranks_and_steps_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="rank is 2 of 2; expected 0 to 1"):
        make().batch_of(0, 2, 2)
    with pytest.raises(ValueError, match="step is -1; steps count from 0"):
        make().batch_of(-1)
    assert make().describe()[1] == "LVLT: 65 samples, 8 steps of 8 an epoch, 1 sample left for the next epoch"
