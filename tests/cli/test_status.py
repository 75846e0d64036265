from __future__ import annotations

import threading
import time

from gex_pipeline.cli.main import main
from gex_pipeline.run_lock import held
from gex_pipeline.run_state import begin, open_run
from tests.making_runs import clip_row, recipe_of, write_jsonl


def test_watching_ends_with_the_run_that_holds_the_output(tmp_path, capsys):
    write_jsonl(tmp_path / "clips.jsonl", [clip_row()])
    run = begin(open_run(recipe_of(tmp_path)))
    over = threading.Event()

    def work():
        with held(run.layout, run.run_id):
            over.wait(20)

    worker = threading.Thread(target=work)
    worker.start()
    while not (tmp_path / "output" / "run.lock").exists():
        time.sleep(0.01)
    threading.Timer(0.5, over.set).start()
    assert main(["status", str(tmp_path / "output"), "--watch"]) == 0
    worker.join()
    said = capsys.readouterr().out
    assert said.count("not finished: snapshot 0") == 2  # at once, and two seconds later
    assert said.count("held by") == 1
    assert said.count("next     run the same 'gex run' again") == 1
