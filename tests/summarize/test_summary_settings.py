from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from gex_pipeline.summarize.settings import SummarizerSettings


@pytest.mark.parametrize("backend", ["vllm", "http"])
def test_a_backend_with_a_model_refuses_to_be_without_one(backend: str) -> None:
    with pytest.raises(ValidationError, match=f"backend '{backend}' needs `model`"):
        SummarizerSettings(backend=backend, url="http://localhost:1/v1")


def test_the_extractive_backend_needs_no_more_than_its_name() -> None:
    assert SummarizerSettings(backend="extractive").model is None


def test_an_http_backend_without_url_says_what_a_url_looks_like() -> None:
    with pytest.raises(ValidationError, match="needs `url`, for example 'http://localhost:8000/v1'"):
        SummarizerSettings(backend="http", model="m")


@pytest.mark.parametrize("url", ["http://me:hunter2@host/v1", "https://host/v1?api_key=hunter2"])
def test_a_secret_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValidationError, match="must not hold a user, a password or a query") as caught:
        SummarizerSettings(backend="http", model="m", url=url)
    assert "hunter2" not in "".join(error["msg"] for error in caught.value.errors(include_input=False))


def test_a_url_that_is_none_is_named() -> None:
    with pytest.raises(ValidationError, match=r"url 'localhost:8000' is not an http\(s\) URL"):
        SummarizerSettings(backend="http", model="m", url="localhost:8000")


def test_word_bounds_that_cross_are_named_with_their_values() -> None:
    with pytest.raises(ValidationError, match="min_words = 30 is over max_words = 20"):
        SummarizerSettings(backend="extractive", min_words=30)
    with pytest.raises(ValidationError, match="accept_min_words = 21 is over min_words = 8"):
        SummarizerSettings(backend="extractive", accept_min_words=21, accept_max_words=22)


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"max_words": 40}, "max_words = 40 is over accept_max_words = 30: .* would be rejected"),
        ({"min_words": 4}, "accept_min_words = 5 is over min_words = 4: .* would be rejected"),
    ],
)
def test_what_is_asked_for_would_not_be_rejected(bounds: dict[str, int], words: str) -> None:
    """With `max_words = 40` alone, most extractive summaries were made and then rejected as too long."""
    with pytest.raises(ValidationError, match=words):
        SummarizerSettings(backend="extractive", **bounds)
    assert SummarizerSettings(backend="extractive", max_words=40, accept_max_words=40).max_words == 40


@pytest.mark.parametrize("port", ["99999", "abc", "0", "-1"])
def test_a_port_that_is_none_is_a_sentence_and_not_a_traceback_of_the_client(port: str) -> None:
    with pytest.raises(ValidationError, match=f"url 'http://host:{port}/v1': the port has to be a number from 1 to"):
        SummarizerSettings(backend="http", model="m", url=f"http://host:{port}/v1")
    assert SummarizerSettings(backend="http", model="m", url="http://host:65535/v1").url


def test_a_password_before_a_bad_port_is_not_repeated() -> None:
    for url in ("http://me:hunter2@host:abc/v1", "http://me:hunter2/x@host/v1", "http://[me:hunter2@host/v1"):
        with pytest.raises(ValidationError) as caught:
            SummarizerSettings(backend="http", model="m", url=url)
        assert "hunter2" not in "".join(error["msg"] for error in caught.value.errors(include_input=False))


def test_the_most_engines_are_not_fewer_than_the_fewest() -> None:
    with pytest.raises(ValidationError, match="max_concurrency = 1 is under concurrency = 2"):
        SummarizerSettings(model="m", concurrency=2, max_concurrency=1)


def test_a_context_is_a_length_or_what_has_room() -> None:
    assert SummarizerSettings(model="m", max_model_len=-1).max_model_len == -1
    with pytest.raises(ValidationError, match="max_model_len = 0 is no context"):
        SummarizerSettings(model="m", max_model_len=0)
    with pytest.raises(ValidationError, match="greater than or equal to -1"):
        SummarizerSettings(model="m", max_model_len=-2)


def test_an_unknown_key_and_a_change_are_errors() -> None:
    with pytest.raises(ValidationError, match="temprature"):
        SummarizerSettings(backend="extractive", temprature=1)
    settings = SummarizerSettings(backend="extractive")
    with pytest.raises(ValidationError, match="frozen"):
        settings.seed = 1


def test_reading_the_settings_loads_nothing_heavy() -> None:
    code = (
        "import sys, gex_pipeline.summarize.compress, gex_pipeline.summarize.http, gex_pipeline.summarize.vllm_backend;"
        "print([m for m in ('torch', 'ray', 'vllm', 'openai', 'transformers', 'nltk', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
