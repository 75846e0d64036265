"""The one interface of everything that writes summaries, and which settings name which."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from gex_pipeline.summarize.extractive import ExtractiveBackend
from gex_pipeline.summarize.request import SummaryAnswer, SummaryRequest
from gex_pipeline.summarize.settings import SummarizerSettings


@dataclass(frozen=True)
class Cluster:
    """The Ray that engines will run in, before it is started: a private one, or one of other machines."""

    is_private: bool = True  # its workers have what is installed here
    adds_nodes: bool = False  # what it has now is not all that it will have


class Backend(Protocol):
    """Answers requests; joins nothing, checks nothing, remembers nothing."""

    @property
    def name(self) -> str:
        """What tables show as the summary's writer."""

    @property
    def max_attempts(self) -> int:
        """How often it makes sense to ask the same thing."""

    def check_ready(self, settings: SummarizerSettings) -> None:
        """Called before planning. Raises GexError with one sentence on what is missing."""

    def answer(self, requests: Iterable[SummaryRequest], settings: SummarizerSettings) -> Iterator[SummaryAnswer]:
        """Answers in any order; a request that fails gets an answer with its error.

        Raises:
            GexError: nothing can be answered at all.
        """


def backend(settings: SummarizerSettings, cluster: Cluster | None = None) -> Backend:
    """The backend that `settings` name; its engines, where it has any, run in that cluster (None: a private one)."""
    if settings.backend == "http":
        from gex_pipeline.summarize.http import HttpBackend

        return HttpBackend(settings)
    if settings.backend == "vllm":
        from gex_pipeline.summarize.vllm_backend import VllmBackend

        return VllmBackend(settings, cluster)
    return ExtractiveBackend()
