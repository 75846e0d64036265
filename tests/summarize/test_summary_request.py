from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gex_pipeline.errors import Reason
from gex_pipeline.summarize.model_identity import model_identity
from gex_pipeline.summarize.request import STOP, request_digest, sampling
from gex_pipeline.summarize.settings import SummarizerSettings
from tests.summarize.stories import FISHING, request

HTTP = SummarizerSettings(backend="http", model="m", url="http://localhost:1/v1")
VLLM = SummarizerSettings(backend="vllm", model="org/name")


@pytest.mark.parametrize(
    "change",
    [
        {"url": "http://elsewhere:9/v1"},
        {"api_key_env": "OTHER"},
        {"timeout_s": 1},
        {"max_retries": 9},
        {"max_in_flight": 1},
        {"concurrency": 4},
        {"batch_size": 1},
        {"accept_max_words": 25},
        {"min_grounding": 0.1},
        {"fallback": "extractive"},
        {"engine": {"gpu_memory_utilization": 0.5, "tensor_parallel_size": 2}},
    ],
)
def test_where_and_how_fast_it_runs_does_not_change_the_digest(change: dict[str, object]) -> None:
    assert request_digest(request(), HTTP.model_copy(update=change)) == request_digest(request(), HTTP)


def test_the_key_does_not_change_the_digest() -> None:
    assert request_digest(request(key="other"), HTTP) == request_digest(request(), HTTP)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"revision": "abc"},
        {"temperature": 0.1},
        {"max_tokens": 65},
        {"seed": 1},
        {"example": False},
        {"max_words": 21},
        {"chat_template": "{{ messages }}"},
        {"engine": {"quantization": "fp8"}},
        {"backend": "http"},
    ],
)
def test_what_decides_the_answer_changes_the_digest(change: dict[str, object]) -> None:
    assert request_digest(request(), VLLM.model_copy(update=change)) != request_digest(request(), VLLM)


def test_the_words_that_end_an_answer_change_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was cut at other words is another answer."""
    before = [request_digest(request(), settings) for settings in (VLLM, HTTP)]
    monkeypatch.setattr("gex_pipeline.summarize.request.STOP", (*STOP, "\n\n"))
    assert sampling(request(), VLLM)["stop"] == [*STOP, "\n\n"]
    after = [request_digest(request(), settings) for settings in (VLLM, HTTP)]
    assert not set(before) & set(after)


def test_attempt_reason_and_captions_change_the_digest() -> None:
    base = request_digest(request(), VLLM)
    again = replace(request(), attempt=1)
    told = replace(again, previous=Reason.summary_too_long)
    digests = {base, *(request_digest(item, VLLM) for item in (again, told, request(FISHING)))}
    assert len(digests) == 4


def test_the_first_attempt_is_greedy_and_later_ones_warmer_with_another_seed() -> None:
    first, second = (sampling(request(attempt=n), VLLM) for n in (0, 1))
    assert (first["temperature"], first["top_p"]) == (0.0, 1.0)
    assert (second["temperature"], second["top_p"]) == (0.7, 0.9)
    assert second["seed"] == first["seed"] + 1 < 2**31


def test_a_model_directory_is_known_by_its_content_and_not_by_its_path(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(b"\0" * (3 << 20))
    first = model_identity(str(tmp_path / "a"), None)
    assert first == model_identity(str(tmp_path / "b"), None)
    # Retrained: same shape, same size, other numbers.
    (tmp_path / "b" / "model.safetensors").write_bytes(b"\1" * (3 << 20))
    model_identity.cache_clear()
    assert model_identity(str(tmp_path / "b"), None) != first


@pytest.mark.parametrize(("size_mb", "changed_mb"), [(20, 0.000001), (600, 8)])
def test_an_adapter_that_is_merged_into_one_tensor_of_many_makes_another_model(tmp_path, size_mb, changed_mb):
    weights = tmp_path / "model.safetensors"
    with weights.open("wb") as stream:
        stream.truncate(size_mb << 20)
    first = model_identity(str(tmp_path), None)
    with weights.open("r+b") as stream:
        stream.seek(5_000_000)
        stream.write(b"\1" * max(1, int(changed_mb * 2**20)))
    model_identity.cache_clear()
    assert weights.stat().st_size == size_mb << 20
    assert model_identity(str(tmp_path), None) != first


def test_a_hub_id_stands_for_itself_with_its_revision() -> None:
    assert model_identity("org/name", "main") == "org/name@main"
    assert model_identity("org/name", None) == "org/name"
