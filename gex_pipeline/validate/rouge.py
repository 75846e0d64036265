"""ROUGE-1, ROUGE-2 and ROUGE-L of summaries against long texts, as F1 in [0, 1].

ASCII English only: rouge-score keeps runs of [a-z0-9] and drops everything else, so a text in
another script has no tokens and scores 0, and an accented word falls apart. Needs no model and no
nltk data. F1 of a short text against a long one is bound by the lengths: compare it between
summarizers over the same long texts, not between granularities.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from gex_pipeline.validate.pairs import rows_to_score

ROUGE_NAMES = ("rouge1", "rouge2", "rougeL")
_STEMS_KEPT = 200_000


class _StemTokenizer:
    """The tokens of rouge-score's own stemming tokenizer, each word stemmed once: about twice as fast on captions."""

    def __init__(self) -> None:
        from nltk.stem import porter
        from rouge_score import tokenize

        self._tokenize = tokenize.tokenize
        self.stem = functools.lru_cache(maxsize=_STEMS_KEPT)(porter.PorterStemmer().stem)

    def tokenize(self, text: str) -> list[str]:
        tokens: list[str] = self._tokenize(text, self)
        return tokens


class Rouge:
    """ROUGE with Porter stemming. One object a process, so that the memory of stems is shared."""

    def __init__(self) -> None:
        from rouge_score import rouge_scorer

        self._scorer = rouge_scorer.RougeScorer(list(ROUGE_NAMES), tokenizer=_StemTokenizer())

    def __call__(self, summaries: Sequence[str], long_texts: Sequence[str]) -> list[dict[str, float]]:
        """F1 a pair, keyed by `ROUGE_NAMES`; a blank text scores 0.

        Raises:
            ValueError: the lists differ in length.
        """
        rows = [dict.fromkeys(ROUGE_NAMES, 0.0) for _ in summaries]
        for row in rows_to_score(summaries, long_texts):
            scores = self._scorer.score(long_texts[row], summaries[row])  # target first, then prediction
            rows[row] = {name: float(scores[name].fmeasure) for name in ROUGE_NAMES}
        return rows
