"""The vLLM engine is killed while it summarises, and one that answers nothing in time; real engines, tiny model."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks.process_table import processes
from gex_pipeline.errors import GexError, TransientError
from gex_pipeline.summarize.backends import backend
from gex_pipeline.summarize.compress import Compression, SummaryResult, summarise
from gex_pipeline.summarize.request import SummaryAnswer, SummaryRequest
from gex_pipeline.summarize.settings import SummarizerSettings
from gex_pipeline.summarize.vllm_backend import what_happened
from tests.summarize.test_vllm_backend import needs_model, needs_vllm, ray_local, settings, story

__all__ = ["ray_local"]  # a fixture
pytestmark = [needs_vllm, needs_model, pytest.mark.slow, pytest.mark.timeout(400)]
NUM_TEXTS, TIMES = 40, 6  # so many that the first engine has not answered all when its first answers are here


class KillsOnce:
    """The real backend; kills the engine's process when the first answers have come."""

    name = "vllm"
    max_attempts = 1

    def __init__(self, chosen: SummarizerSettings) -> None:
        self._backend = backend(chosen)
        self.killed: list[int] = []
        self.seen: set[int] = set()

    def check_ready(self, chosen: SummarizerSettings) -> None:
        self._backend.check_ready(chosen)

    def answer(self, requests: Iterator[SummaryRequest], chosen: SummarizerSettings) -> Iterator[SummaryAnswer]:
        for answer in self._backend.answer(requests, chosen):
            if not self.killed:
                self.killed = engines()
                for pid in self.killed:
                    os.kill(pid, signal.SIGKILL)
            self.seen |= set(engines())
            yield answer


def engines() -> list[int]:
    return [one.pid for one in processes() if one.program.startswith("VLLM::EngineCore")]


def test_an_engine_that_is_killed_is_started_again_and_every_text_ends_as_it_would_have(ray_local: None) -> None:
    """The same texts are asked several times under other keys, before and after the kill: all answers are the same."""
    chosen = settings(batch_size=8, max_attempts=1)
    texts = [story(number) for number in range(NUM_TEXTS)]
    asked = [replace(request, key=f"{time}-{request.key}") for time in range(TIMES) for request in texts]
    writer = KillsOnce(chosen)
    results: dict[str, SummaryResult] = {}
    for result in summarise(asked, Compression(chosen, backend=writer)):
        assert result.key not in results
        results[result.key] = result
    assert len(writer.killed) == 1
    assert len(writer.seen - set(writer.killed)) == 1, "no second engine: the first had answered everything"
    assert results.keys() == {request.key for request in asked}
    for request in texts:
        same = [results[f"{time}-{request.key}"] for time in range(TIMES)]
        assert len({(one.text, one.raw_text, one.reason) for one in same}) == 1, same
    accepted = sum(result.state == "accepted" for result in results.values())
    assert accepted >= len(asked) / 2, [result.detail for result in results.values()]


NO_START = """The actor died because of an error raised in its creation task, ray::MapWorker.__init__() (pid=1)
  File "arg_utils.py", line 1, in create_model_config
    return ModelConfig(
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, User-specified max_model_len (100000) is greater than the derived one
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""


def test_an_engine_that_cannot_start_says_why_in_one_line() -> None:
    said = what_happened(GexError(NO_START))
    assert said.startswith("did not start: pydantic_core._pydantic_core.ValidationError: 1 validation error for")
    assert "max_model_len (100000) is greater" in said
    assert "\n" not in said
    assert what_happened(GexError("The actor died unexpectedly before finishing this task.")) == "died 4 times"


def test_an_engine_that_gives_no_answer_in_time_ends_the_run_for_now(ray_local: None) -> None:
    """Its start counts, so that no time to start is needed here."""
    chosen = settings(engine_timeout_s=3)
    with pytest.raises(TransientError, match=r"gave no answer for 3 s; .* Run the same command again") as caught:
        list(backend(chosen).answer([story(0)], chosen))
    assert "\n" not in str(caught.value)
