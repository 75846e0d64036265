"""Words and log lines are those of an engine of vLLM 0.32 that found no memory for its cache, shortened."""

from __future__ import annotations

from pathlib import Path

from gex_pipeline.summarize.engine_logs import logged_cause

TOLD = """The actor died because of an error raised in its creation task, \x1b[36mray::MapWorker(MapBatches(\
vLLMEngineStageUDF)).__init__()\x1b[39m (pid=19356, ip=10.0.0.7, actor_id=7a154be3acdb, repr=MapWorker(MapBatches(...)))
  File "vllm/v1/engine/utils.py", line 1431, in wait_for_engine_startup
    raise RuntimeError(
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}
"""
ERR = """Process EngineCore:
    raise ValueError(
ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`
    raise RuntimeError(
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}
"""
OUT = """(EngineCore pid=23660) ERROR 11-21 22:49:38 [core.py:1510]     raise ValueError(
(EngineCore pid=23660) ERROR 11-21 22:49:38 [core.py:1510] ValueError: No available memory for the cache blocks. Try
(EngineCore pid=23660) INFO 11-21 22:49:39 [core.py:1520] shutting down
"""


def test_an_engine_that_does_not_start_in_a_process_of_its_own_says_why(tmp_path: Path) -> None:
    """All that was told was "See root cause above", and above was in a log that nobody was shown."""
    for end, text in (("err", ERR), ("out", OUT)):
        for file in tmp_path.glob("worker-*"):
            file.unlink()
        (tmp_path / f"worker-815ee8-01000000-19356.{end}").write_text(text)
        (tmp_path / f"worker-815ee8-01000000-4.{end}").write_text("ValueError: of another worker")
        cause = logged_cause(TOLD, tmp_path) or ""
        assert cause.startswith("ValueError: No available memory for the cache blocks. Try")
        assert cause.endswith(f"(in {tmp_path}/worker-*-19356.* on 10.0.0.7)")


def test_where_the_log_is_on_another_node_its_name_and_the_nodes_address_are_told(tmp_path: Path) -> None:
    assert logged_cause(TOLD, tmp_path) == f"see {tmp_path}/worker-*-19356.* on 10.0.0.7"


def test_a_cause_that_the_message_has_itself_is_not_looked_for(tmp_path: Path) -> None:
    (tmp_path / "worker-a-1-7.err").write_text("ValueError: of long ago")
    assert logged_cause("creation task (pid=7, ip=127.0.0.1)\nValueError: max_model_len is greater", tmp_path) is None
