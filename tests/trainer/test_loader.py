from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from tests.trainer.outputs import make_numbered_output, numbers_of, settings_of
from trainer.catalog import read_catalog, source_number
from trainer.loader import DamageCount, Damaged, Loader, Rank, agree_over, order_of

NUM_SOURCES = 18  # with batches of 4: 4 steps of each granularity an epoch


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return make_numbered_output(tmp_path_factory.mktemp("loader"), NUM_SOURCES)


@pytest.fixture
def damaged(output, tmp_path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(output, tmp_path / "out"))


def on_our_own(counts):
    return counts


def load(output, steps=None, rank=0, world_size=1, agree=on_our_own, **settings):
    """The batches of these steps, an epoch by default, and the loader."""
    chosen = settings_of(output, **settings)
    with read_catalog(chosen.dataset, chosen.snapshot, list(chosen.granularities)) as catalog:
        part = catalog.split(chosen.held_out_share, chosen.held_out_seed).training
        order = order_of(chosen, part)
        place = Rank(rank, world_size, agree)
        with Loader(chosen, part, order, steps or range(order.steps_per_epoch), place) as loader:
            return list(loader), loader


def keys_of(batches):
    return [batch.keys for batch in batches]


def ruin(output: Path, number: int, name: str = "LVLT") -> str:
    """Overwrite the media of a granularity's sample in its tar; its key."""
    row = pq.read_table(output / name / f"{name}-000000.parquet").to_pylist()[number]
    with (output / row["media_uri"]).open("r+b") as tar:
        tar.seek(row["media_offset_bytes"])
        tar.write(bytes(row["media_size_bytes"]))
    return row["key"]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_all_ranks_together_get_every_sample_once_an_epoch(output, world_size):
    parts = [load(output, rank=rank, world_size=world_size)[0] for rank in range(world_size)]
    keys = {"LVLT": [], "LVST": [], "IT": []}
    for batches in zip(*parts, strict=True):
        assert len({(batch.step, batch.granularity) for batch in batches}) == 1
        for batch in batches:
            assert len(batch.keys) == len(batch.texts) == len(batch.sources_BS) == 4 // world_size
            keys[batch.granularity] += batch.keys
    for found in keys.values():
        assert len(set(found)) == len(found) == 16  # two are left for the next epoch


def test_a_batch_holds_the_frames_texts_and_sources_of_its_samples(output):
    batches, loader = load(output)
    num_frames = {"LVLT": 6, "LVST": 3, "IT": 1}
    for batch in batches:
        assert batch.frames_BT3HW.dtype == torch.uint8
        assert batch.frames_BT3HW.shape == (4, num_frames[batch.granularity], 3, 48, 48)
        assert batch.sources_BS.dtype == torch.int64
        for frames, text, source in zip(batch.frames_BT3HW, batch.texts, batch.sources_BS[:, 0].tolist(), strict=True):
            digits = [int(word) for word in text.replace(".", "").replace("video", "").split() if word.isdigit()]
            number = digits[0] if batch.granularity == "LVST" else digits[-1]
            assert source == source_number(f"video{number:02d}")
            middles = {"LVLT": [1, 3, 5, 7, 9, 11], "LVST": [2, 6, 10], "IT": [6]}[batch.granularity]
            assert numbers_of(frames.numpy()) == [(number % 16, frame) for frame in middles]
    assert [batch.step for batch in batches] == list(range(12))
    assert loader.damage.num_damaged == 0


def test_three_workers_give_what_none_give_see_no_accelerator_and_are_gone_afterwards(output):
    alone, _ = load(output, range(5, 20))
    settings = settings_of(output, num_workers=3)
    with read_catalog(settings.dataset) as catalog:
        part = catalog.split(0).training
        with Loader(settings, part, order_of(settings, part), range(5, 20)) as loader:
            batches = [next(loader)]
            workers = multiprocessing.active_children()
            assert len(workers) == 3
            for worker in workers:
                assert "libcuda.so" not in Path(f"/proc/{worker.pid}/maps").read_text()
            batches += loader
    assert [batch.step for batch in batches] == list(range(5, 20))
    for mine, theirs in zip(alone, batches, strict=True):
        assert (mine.keys, mine.texts, mine.granularity) == (theirs.keys, theirs.texts, theirs.granularity)
        assert torch.equal(mine.frames_BT3HW, theirs.frames_BT3HW)
        assert torch.equal(mine.sources_BS, theirs.sources_BS)
    assert not multiprocessing.active_children()


RANDOM = {"frame_sampling": "random", "granularities": {"LVLT": {"num_frames": 3}}}


def frames_of(batches) -> dict[tuple[int, str], list[int]]:
    """By epoch, of four steps, and key: the frames that were read."""
    return {
        (batch.step // 4, key): [frame for _, frame in numbers_of(frames.numpy())]
        for batch in batches
        for key, frames in zip(batch.keys, batch.frames_BT3HW, strict=True)
    }


def test_random_frames_are_other_ones_in_every_epoch_and_the_same_whoever_reads_them(output):
    """Frames were the middle ones in every epoch, so a hundred epochs showed the same pixels."""
    whole = load(output, range(12), **RANDOM)[0]
    found = frames_of(whole)
    assert all([frame // 4 for frame in frames] == [0, 1, 2] for frames in found.values())
    keys = {key for _, key in found}
    again = [[found[epoch, key] for epoch in range(3) if (epoch, key) in found] for key in keys]
    assert sum(one[0] != one[1] for one in again if len(one) > 1) > 0.8 * NUM_SOURCES
    assert found == frames_of(load(output, range(12), **RANDOM, num_workers=2)[0])
    assert found == frames_of(load(output, range(5), **RANDOM)[0] + load(output, range(5, 12), **RANDOM)[0])
    ranks = [load(output, range(12), rank, 2, **RANDOM)[0] for rank in range(2)]
    assert found == {**frames_of(ranks[0]), **frames_of(ranks[1])}
    assert found != frames_of(load(output, range(12), **RANDOM, seed=1)[0])


def test_without_a_word_frames_are_the_middle_ones_in_every_epoch(output):
    batches, _ = load(output, range(12), granularities=RANDOM["granularities"])
    assert set(map(tuple, frames_of(batches).values())) == {(2, 6, 10)}


def test_going_on_at_a_step_with_another_number_of_ranks_gives_the_same_batches(output):
    uninterrupted = keys_of(load(output, range(18), granularities={"LVST": {"num_frames": 1}, "IT": {}})[0])
    later = range(7, 18)
    parts = [
        keys_of(load(output, later, rank, 4, granularities={"LVST": {"num_frames": 1}, "IT": {}})[0])
        for rank in range(4)
    ]
    resumed = [[key for part in parts for key in part[step]] for step in range(len(later))]
    assert resumed == uninterrupted[7:]


def test_held_out_sources_are_never_trained_on(output):
    batches, _ = load(output, range(30), batch_size=2, held_out_share=0.3, granularities={"IT": {}, "LVST": {}})
    seen = {source for batch in batches for source in batch.sources_BS[:, 0].tolist()}
    with read_catalog(str(output)) as catalog:
        held_out = catalog.split(0.3).held_out
        sources = {held_out.sample("IT", index).source_number for index in range(held_out.num_samples("IT"))}
    assert sources
    assert len(seen) + len(sources) == NUM_SOURCES
    assert not seen & sources


def test_a_damaged_sample_is_replaced_counted_and_named_and_the_batch_stays_full(damaged):
    key = ruin(damaged, 2)
    only = {"LVLT": {"num_frames": 2}}
    whole = {batch.step: batch for batch in load(damaged, range(8), granularities=only, max_damaged_share=1)[0]}
    parts = [load(damaged, range(8), rank, 2, granularities=only, max_damaged_share=1) for rank in range(2)]
    for first, second in zip(parts[0][0], parts[1][0], strict=True):
        batch = whole[first.step]
        assert first.keys + second.keys == batch.keys  # whoever meets it, the same one stands in
        assert first.damaged + second.damaged == batch.damaged
        assert len(set(batch.keys)) == 4
        assert key not in batch.keys
    named = [one for batch in whole.values() for one in batch.damaged]
    assert {one.key for one in named} == {key}
    assert all("the video cannot be decoded" in one.reason for one in named)
    assert 1 <= len(named) <= 3
    counts = [loader.damage for _, loader in parts]
    assert sum(count.num_damaged for count in counts) == sum(
        len(batch.damaged) for batch in whole.values() if batch.step > 3
    )


def test_a_sample_without_text_is_damaged(damaged):
    receipt = damaged / "IT" / "IT-000000.parquet"
    table = pq.read_table(receipt)
    texts = [" \n" if number == 1 else text for number, text in enumerate(table["text"].to_pylist())]
    at = table.column_names.index("text")
    pq.write_table(table.set_column(at, table.schema.field("text"), [texts]), receipt)
    batches, _ = load(damaged, range(8), granularities={"IT": {}}, max_damaged_share=1)
    named = {one for batch in batches for one in batch.damaged}
    assert named == {Damaged(table["key"][1].as_py(), "its text is empty")}


def test_too_many_damaged_samples_stop_training_and_are_named(damaged):
    keys = {ruin(damaged, number, "IT") for number in range(3)}
    with pytest.raises(GexError, match=r"of epoch 0 cannot be read, more than max_damaged_share = 0\.1 allows") as stop:
        load(damaged, range(8), granularities={"IT": {}}, max_damaged_share=0.1)
    assert int(str(stop.value).split()[0]) >= 2  # 1 of 16 is allowed
    assert sum(key in str(stop.value) for key in keys) >= 2
    assert "an image cannot be decoded" in str(stop.value)


def test_damage_is_a_share_of_all_that_was_asked_for_and_an_epoch_begins_anew():
    """A damaged sample was asked for beside the one that stands in for it."""
    counts = DamageCount()
    found = []
    for epoch, damaged in ((0, ["a", "b"]), (0, []), (1, ["c"]), (1, [])):
        counts.add(epoch, 4, [Damaged(key, "torn") for key in damaged])
        found.append((counts.num_seen, counts.num_damaged, [one.key for one in counts.first]))
    assert found == [(6, 2, ["a", "b"]), (10, 2, ["a", "b"]), (5, 1, ["c"]), (9, 1, ["c"])]


def test_samples_of_a_missing_tar_are_damaged_and_nothing_else_to_take_stops_training(damaged):
    for tar in (damaged / "IT").glob("*.tar"):
        tar.unlink()
    with pytest.raises(GexError, match=r"4 samples of IT in turn cannot be read, .*IT-00000\d.tar' does not exist"):
        load(damaged, range(8), granularities={"IT": {}}, max_damaged_share=1)


class Together:
    """Ranks in threads that sum their counts, as a process group does; one that stays away would hang the others."""

    def __init__(self, num_ranks):
        self.barrier = threading.Barrier(num_ranks, timeout=20)
        self.counts = {}

    def agree_as(self, rank):
        def agree(counts):
            self.counts[rank] = counts
            self.barrier.wait()
            total = tuple(int(sum(column)) for column in zip(*self.counts.values(), strict=True))
            self.barrier.wait()
            return total

        return agree


def run_ranks(output, num_ranks, **settings):
    """What every rank got until it stopped, and how it stopped."""
    together, got, ended = Together(num_ranks), [[] for _ in range(num_ranks)], [""] * num_ranks

    def run(rank):
        chosen = settings_of(output, **settings)
        with read_catalog(chosen.dataset, granularities=list(chosen.granularities)) as catalog:
            part = catalog.split(0).training
            place = Rank(rank, num_ranks, together.agree_as(rank))
            with Loader(chosen, part, order_of(chosen, part), range(8), place) as loader:
                try:
                    got[rank] += [batch.step for batch in loader]
                except GexError as error:
                    ended[rank] = str(error)
                    got[rank].append(loader.damage.num_damaged)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(num_ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not together.barrier.broken
    return got, ended


def test_ranks_without_damaged_samples_stop_with_those_that_have_them(damaged):
    for number in range(4):
        ruin(damaged, number, "IT")
    _, ended = run_ranks(damaged, 4, granularities={"IT": {}}, max_damaged_share=0.1)
    assert all("of epoch 0 cannot be read, more than max_damaged_share = 0.1 allows" in message for message in ended)
    numbers = {message.split(" samples")[0] for message in ended}
    assert len(numbers) == 1  # they counted the same, at the same step


def test_ranks_stop_together_when_storage_fails_for_one_of_them(damaged):
    tar = damaged / "IT" / "IT-000000.tar"
    tar.unlink()
    tar.mkdir()  # there is something, and it cannot be read
    _, ended = run_ranks(damaged, 4, granularities={"IT": {}}, max_damaged_share=0.1)
    failed = [message for message in ended if "IT-000000.tar" in message]
    told = [message for message in ended if "other ranks cannot read their data; their messages say why" in message]
    assert failed
    assert len(failed) + len(told) == 4


def add_up(rank, meeting, sums):
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    sums.put(agree_over(torch.distributed.group.WORLD)((10, rank, 1 - rank)))
    torch.distributed.destroy_process_group()


def test_ranks_agree_over_a_process_group(tmp_path):
    context = multiprocessing.get_context("forkserver")
    sums = context.Queue()
    ranks = [context.Process(target=add_up, args=(rank, tmp_path / "meeting", sums)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    assert [sums.get(timeout=60) for _ in ranks] == [(20, 1, 1)] * 2
    for rank in ranks:
        rank.join(20)


def test_a_killed_worker_ends_training_with_a_sentence(output):
    settings = settings_of(output, num_workers=1, granularities={"IT": {}}, prefetch_batches=1)
    with read_catalog(settings.dataset) as catalog:
        part = catalog.split(0).training
        with Loader(settings, part, order_of(settings, part), range(500)) as loader:
            next(loader)
            (worker,) = multiprocessing.active_children()
            os.kill(worker.pid, signal.SIGKILL)
            with pytest.raises(GexError, match=r"the workers that read the data stopped at step \d+: .*exited"):
                for _ in loader:
                    time.sleep(0.01)
            with pytest.raises(StopIteration):
                next(loader)
    assert not multiprocessing.active_children()


def train_and_be_killed(output, pids):
    settings = settings_of(output, num_workers=2, granularities={"IT": {}})
    catalog = read_catalog(settings.dataset)
    part = catalog.split(0).training
    loader = Loader(settings, part, order_of(settings, part), range(500))
    next(loader)
    pids.send([worker.pid for worker in multiprocessing.active_children()])
    pids.send(catalog.folder)
    os.kill(os.getpid(), signal.SIGKILL)


def test_workers_end_when_the_training_process_is_killed(output):
    context = multiprocessing.get_context("forkserver")
    pids, sender = context.Pipe(duplex=False)
    training = context.Process(target=train_and_be_killed, args=(output, sender))
    training.start()
    workers, folder = pids.recv(), pids.recv()
    training.join(20)
    shutil.rmtree(folder)  # nobody is left to do it
    assert len(workers) == 2
    until_s = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < until_s
        time.sleep(0.05)


def test_workers_that_give_nothing_for_too_long_end_training_and_are_killed(output, monkeypatch):
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.5)  # how long torch asks them politely
    settings = settings_of(output, num_workers=1, worker_timeout_s=0.5, granularities={"IT": {}}, prefetch_batches=1)
    with read_catalog(settings.dataset) as catalog:
        part = catalog.split(0).training
        with Loader(settings, part, order_of(settings, part), range(500)) as loader:
            (worker,) = multiprocessing.active_children()
            os.kill(worker.pid, signal.SIGSTOP)
            with pytest.raises(GexError, match=r"stopped at step \d+: nothing came for 0.5 s \(worker_timeout_s\)"):
                list(loader)
    assert not multiprocessing.active_children()


def test_several_ranks_need_a_way_to_agree_and_divide_the_batch(output):
    with pytest.raises(ValueError, match="there are 2 ranks and no way for them to agree; give one"):
        load(output, world_size=2, agree=None)
    with pytest.raises(GexError, match="the batch size 4 cannot be divided among 3 ranks"):
        load(output, world_size=3)


def test_a_data_set_on_an_object_store_gives_the_same_batches(output, world):
    bucket = world.make_bucket("trainer-data")
    for path in output.rglob("*.*"):
        storage.publish_file(path, f"{bucket}/out/{path.relative_to(output)}")
    here, _ = load(output, range(6))
    there, _ = load(f"{bucket}/out", range(6), num_workers=1)
    assert keys_of(here) == keys_of(there)
    assert np.all([torch.equal(a.frames_BT3HW, b.frames_BT3HW) for a, b in zip(here, there, strict=True)])
