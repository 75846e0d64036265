"""The training flow as Prefect runs it, over a published data set."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from gex_pipeline.errors import GexError
from tests.trainer.outputs import make_numbered_output
from tests.trainer.tiny_recipes import steps_of, tables_of, write_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def test_a_training_that_was_told_to_stop_is_not_completed_and_says_how_to_go_on(prefect_server, tmp_path):
    """Its state was Completed, with no model."""
    from flows.train import TrainParameters, train

    output, over = tmp_path / "training", threading.Event()
    changes = {"data": {"granularities": {"IT": {}}}, "optim": {"epochs": 1000}}
    tables = tables_of(make_numbered_output(tmp_path / "numbered", 8), output, changes)
    recipe = write_recipe(tmp_path / "train.toml", tables)

    def stop():
        while not steps_of(output) and not over.wait(0.05):
            pass
        os.kill(os.getpid(), signal.SIGTERM if steps_of(output) else 0)

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        state = train(TrainParameters(recipe=str(recipe)), return_state=True)
    finally:
        over.set()
        thread.join()
    assert state.is_failed()
    assert state.message == (
        f"stage 'train' failed: it was told to stop (SIGTERM) and wrote a checkpoint. To go on: gex train {recipe}"
    )
    with pytest.raises(GexError, match="told to stop"):
        state.result()
    assert len(list((output / "checkpoints").glob("step-*"))) == 1, "it is not tried again"
