"""The text scores of a recipe as one object: summaries and long texts in, one merged row of scores a pair out.

Row i of the result belongs to pair i of the input, always. A model is loaded at its first use and
kept on its device, so one object a process is enough. Decides nothing: gates read the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from gex_pipeline.errors import GexError
from gex_pipeline.validate.bertscore import BERTSCORE_NAMES, BertScore
from gex_pipeline.validate.clip import ClipCosine
from gex_pipeline.validate.pairs import check_parallel
from gex_pipeline.validate.rouge import ROUGE_NAMES, Rouge
from gex_pipeline.validate.sentence import SentenceCosine
from gex_pipeline.validate.settings import ScorerSettings

SENTENCE_NAME = "sentence_cosine"
CLIP_TEXT_NAME = "clip_text_cosine"


class TextScorers:
    """ROUGE, sentence cosine, BERTScore and CLIP text cosine, each where the settings ask for it.

    Models run on `device`; None takes a GPU where this process sees one.
    """

    def __init__(self, settings: ScorerSettings, *, device: str | None = None) -> None:
        self.settings = settings
        self._device = device

    def names(self) -> tuple[str, ...]:
        """Keys of each row that `score` gives, in their order; loads nothing."""
        wanted: list[str] = []
        if self.settings.rouge:
            wanted += ROUGE_NAMES
        if self.settings.sentence_model is not None:
            wanted.append(SENTENCE_NAME)
        if self.settings.bertscore_model is not None:
            wanted += BERTSCORE_NAMES
        if self.settings.clip_model is not None:
            wanted.append(CLIP_TEXT_NAME)
        return tuple(wanted)

    def score(self, summaries: Sequence[str], long_texts: Sequence[str]) -> list[dict[str, float]]:
        """One row a pair with the keys of `names()`; every score of a blank text is 0.

        Raises:
            ValueError: the lists differ in length.
            GexError: a model cannot be loaded.
        """
        check_parallel(summaries, long_texts)
        rows: list[dict[str, float]] = [{} for _ in summaries]
        if not rows:
            return rows  # no model is loaded for nothing
        if self.settings.rouge:
            _merge(rows, self._rouge(summaries, long_texts))
        if self.settings.sentence_model is not None:
            _merge(rows, [{SENTENCE_NAME: value} for value in self._sentence(summaries, long_texts)])
        if self.settings.bertscore_model is not None:
            _merge(rows, self._bertscore(summaries, long_texts))
        if self.settings.clip_model is not None:
            _merge(rows, [{CLIP_TEXT_NAME: value} for value in self.clip.text_text(summaries, long_texts)])
        return rows

    def signatures(self) -> dict[str, str]:
        """Which model stands behind each model score, the same text on every machine; loads the models."""
        found: dict[str, str] = {}
        if self.settings.sentence_model is not None:
            found[SENTENCE_NAME] = self._sentence.signature
        if self.settings.bertscore_model is not None:
            found |= dict.fromkeys(BERTSCORE_NAMES, self._bertscore.signature)
        if self.settings.clip_model is not None:
            found[CLIP_TEXT_NAME] = self.clip.signature
        return found

    @cached_property
    def clip(self) -> ClipCosine:
        """The CLIP model of the settings, for a stage that scores videos too.

        Raises:
            GexError: the settings name none.
        """
        if self.settings.clip_model is None:
            raise GexError("scorers: clip_model is not set; give a local directory or a hub id of a CLIP model")
        return ClipCosine(self.settings.clip_model, device=self._device)

    @cached_property
    def _rouge(self) -> Rouge:
        return Rouge()

    @cached_property
    def _sentence(self) -> SentenceCosine:
        return SentenceCosine(self.settings.sentence_model, device=self._device)

    @cached_property
    def _bertscore(self) -> BertScore:
        return BertScore(self.settings.bertscore_model, self.settings.bertscore_layers, device=self._device)


def _merge(rows: list[dict[str, float]], scores: Sequence[dict[str, float]]) -> None:
    for row, found in zip(rows, scores, strict=True):
        row.update(found)
