"""Whether a sentence may stand as a summary, judged by the text alone.

Made for English: stems are Porter's, numbers and refusals those of English. Lengths are counted in any script.
Semantic scores and their gates come afterwards and are not known here.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Literal

from gex_pipeline.errors import Reason
from gex_pipeline.summarize.prompt import EXAMPLE_CAPTIONS, EXAMPLE_SUMMARY, SYSTEM, mark_of
from gex_pipeline.summarize.request import SummaryRequest
from gex_pipeline.summarize.settings import SummarizerSettings
from gex_pipeline.summarize.writing import num_words

_WORD = re.compile(r"[^\W\d_]+")
_JOINERS = "\u200c\u200d"
_MIN_STEM_CHARS = 3
_ECHO_WORDS = 6  # a run of this many words of the prompt is no accident
_STOP_TEXT = (
    "a an the and or but then while as of in on at to for with from by into onto over under up down out off near next "
    "is are was were be been being has have had does do did it its this that these those there their his her him "
    "them they he she who which some several two three one"
)
_STOP_WORDS = frozenset(_STOP_TEXT.split())
# One group a kind of refusal: captions that hold words of a kind excuse that kind.
_REFUSAL = re.compile(
    r"\b(as an? (?:ai|language model|assistant))\b"
    r"|\b(i(?:(?:'|\u2019)?m| am) (?:sorry|unable|not able|an ai))\b"
    r"|\b((?:i can(?:'t|\u2019t| not)|(?:i )?cannot) (?:assist|help|comply|summari[sz]e))\b"
    r"|\b(i (?:can(?:not|'t|\u2019t| not)|won(?:'|\u2019)t|do not|don(?:'|\u2019)t))\b"
    r"|\b(please (?:provide|share))\b|\b(no captions?)\b"
    r"|\b(i apologi[sz]e)\b",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"\[/?(?:captions|end|inst)\b|one-sentence summary|```|<[^>]{1,60}>|#{2,}|[{}\\]", re.IGNORECASE)
# One group a kind, too. A video game is a thing to play, and hair is held by a clip.
_META = re.compile(
    r"\b(videos?(?![ -]games?\b)|(?<!hair[ -])(?<!paper[ -])clips?|captions?|footage|montage)\b"
    r"|\b(the (?:camera|scene|viewer)s?)\b",
    re.IGNORECASE,
)
_UNITS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES = {
    **{word: value for value, word in enumerate(_UNITS, 1)},
    **dict(zip(("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen"), range(10, 16), strict=True)),
    **dict(zip(("sixteen", "seventeen", "eighteen", "nineteen"), range(16, 20), strict=True)),
    **{word: 10 * value for value, word in enumerate(_TENS, 2)},
    **{"dozen": 12, "dozens": 12, "hundred": 100, "hundreds": 100, "thousand": 1000, "thousands": 1000},
}
_LEAST_COUNTED = 4  # a man and a woman are two people, though no caption counts them
_NUMBER = re.compile(
    rf"\b(?P<tens>{'|'.join(_TENS)})[- ](?P<unit>{'|'.join(_UNITS)})\b"
    rf"|\b(?P<word>{'|'.join(_VALUES)})\b"
    r"|(?P<digits>[0-9]{1,15}(?:,[0-9]{3}){0,4})"
)
_ADDRESS = re.compile(r"https?://|www\.|\S@\S", re.IGNORECASE)


def check_summary(
    candidate: str,
    request: SummaryRequest,
    settings: SummarizerSettings,
    finish: Literal["stop", "length"] | None = None,
) -> list[Reason]:
    """Everything that is wrong with a cleaned sentence; an empty list accepts it.

    `finish` is "length" when the model was cut before it ended this sentence.
    """
    words = candidate.split()
    if not words:
        return [Reason.summary_empty]
    length = num_words(candidate)
    found = {
        Reason.summary_refusal: _new_match(_REFUSAL, candidate, request),
        Reason.summary_prompt_echo: _echoes_prompt(candidate, request),
        Reason.summary_truncated: finish == "length",
        Reason.summary_too_long: length > settings.accept_max_words,
        Reason.summary_too_short: length < settings.accept_min_words,
        Reason.summary_not_shorter: length >= num_words(request.text),
        Reason.summary_meta: _speaks_of_itself(candidate, request),
        Reason.summary_repetition: _repeats(words),
        Reason.summary_ungrounded: (
            grounding(candidate, request.captions) < settings.min_grounding
            or _new_match(_ADDRESS, candidate, request)
            or bool(new_numbers(candidate, request, settings))
        ),
    }
    return [reason for reason, wrong in found.items() if wrong]


def grounding(summary: str, captions: Sequence[str]) -> float:
    """Share of the summary's content words, as stems, that occur in the captions; 0 for a text without any."""
    words = _content_stems(summary)
    if not words:
        return 0.0
    known = set(_content_stems(" ".join(captions)))
    return sum(word in known for word in words) / len(words)


def new_numbers(summary: str, request: SummaryRequest, settings: SummarizerSettings) -> list[str]:
    """Numbers of the summary, from four upwards and as it writes them, that no caption holds, in digits or words.

    None with `min_grounding = 0`: the captions may be in a language whose numbers are not known here.
    """
    if settings.min_grounding == 0:
        return []
    known: set[int] = set()
    for caption in request.captions:
        for match in _NUMBER.finditer(_folded(caption)):
            parts = [part for part in (match["tens"], match["unit"]) if part]
            known |= {_value(match), *(_VALUES[part] for part in parts)}
    found = _NUMBER.finditer(_folded(summary))
    return [match[0] for match in found if _value(match) >= _LEAST_COUNTED and _value(match) not in known]


def _value(match: re.Match[str]) -> int:
    """What a number is; dozens are a dozen, hundreds a hundred."""
    if match["digits"]:
        return int(match["digits"].replace(",", ""))
    if match["word"]:
        return _VALUES[match["word"]]
    return _VALUES[match["tens"]] + _VALUES[match["unit"]]


def _folded(text: str) -> str:
    """In small letters, without accents and joiners, which stand inside words; full-width digits are plain ones."""
    folded = unicodedata.normalize("NFKD", text.lower())
    return "".join(char for char in folded if char not in _JOINERS and not unicodedata.combining(char))


def _content_stems(text: str) -> list[str]:
    stem = _stemmer()
    words = _WORD.findall(_folded(text))
    return [stem(word) for word in words if len(word) >= _MIN_STEM_CHARS and word not in _STOP_WORDS]


@functools.cache
def _stemmer() -> Callable[[str], str]:
    from nltk.stem.porter import PorterStemmer

    stem: Callable[[str], str] = functools.lru_cache(maxsize=100_000)(PorterStemmer().stem)
    return stem


def _new_match(pattern: re.Pattern[str], candidate: str, request: SummaryRequest) -> bool:
    """Whether the summary speaks of something of this kind, one group a kind, and the captions do not."""
    kinds = {match.lastindex for match in pattern.finditer(candidate)}
    return bool(kinds - {match.lastindex for match in pattern.finditer(" ".join(request.captions))})


def _speaks_of_itself(candidate: str, request: SummaryRequest) -> bool:
    """Whether a summary names a video, a caption or the camera where no caption does.

    Who is 'clipping' nails 'clips' them, and who holds a camera may show the camera.
    """
    named = _content_stems(" ".join(match[0] for match in _META.finditer(candidate)))
    return _new_match(_META, candidate, request) and not set(named) <= set(_content_stems(" ".join(request.captions)))


def _runs(text: str, size: int) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


@functools.cache
def _prompt_runs() -> frozenset[tuple[str, ...]]:
    texts = [SYSTEM, EXAMPLE_SUMMARY, *EXAMPLE_CAPTIONS]
    return frozenset().union(*(_runs(text, _ECHO_WORDS) for text in texts))


def _echoes_prompt(candidate: str, request: SummaryRequest) -> bool:
    if _MARKUP.search(candidate) or mark_of(request) in candidate.split():
        return True
    echoed = _runs(candidate, _ECHO_WORDS) & _prompt_runs()
    return bool(echoed - _runs(" ".join(request.captions), _ECHO_WORDS))


def _repeats(words: list[str]) -> bool:
    """Whether a phrase is said again at once, a short one three times, or most words are the same few."""
    low = [word.lower().strip(",.;:") for word in words]
    for size, times in ((1, 3), (2, 3), (3, 2), (4, 2), (5, 2), (6, 2)):
        for i in range(len(low) - size * times + 1):
            if all(low[i : i + size] == low[i + k * size : i + (k + 1) * size] for k in range(1, times)):
                return True
    return len(low) >= 10 and len(set(low)) < len(low) / 2
