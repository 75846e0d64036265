"""Compression without a model: the clauses nearest to the whole, joined into one sentence.

Captions are tidied, near repetitions dropped, then every choice of up to three of them, each with or
without its last prepositional phrase, is fused into a sentence; the one within the word bounds whose
words lie nearest to those of all captions wins. Deterministic. It cannot say what no caption says, but
it can give one caption's subject another's action where both subjects look the same.
"""

from __future__ import annotations

import itertools
import math
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from gex_pipeline.summarize.prompt import sanitize_caption
from gex_pipeline.summarize.quotes import unquoted
from gex_pipeline.summarize.request import SummaryAnswer, SummaryRequest, request_digest
from gex_pipeline.summarize.settings import SummarizerSettings
from gex_pipeline.summarize.writing import SPACED_ENDS, UNSPACED_COMMAS, UNSPACED_ENDS, first_words, num_words

_MAX_PARTS = 3
_MAX_CHOICES = 10  # captions that enter the enumeration: at most 10 over 3, times two forms of each
_NEAR_REPETITION = 0.85  # cosine from which two captions count as one
_ROUNDING = 1e-6  # far over what a sum of a caption's weights can be off

_SCAFFOLD = re.compile(
    r"^(?:(?:in|from|throughout) (?:this|the) (?:video|clip|scene|image)\b,?\s+"
    r"|(?:this|the) (?:video|clip|image|scene|picture) (?:shows|features|depicts|is of)\s+"
    r"|there (?:is|are)\s+"
    r"|(?:an?|the) (?:extreme |aerial )?(?:close[- ]?up|screen ?shot|image|picture|photo|shot|view|video|clip)"
    r"(?: view| shot)? (?:of|shows)\s+)",
    re.IGNORECASE,
)
_BE_CLAUSE = re.compile(r"(?P<subject>[\w' -]+?) (?P<verb>is|are|was|were) (?P<rest>.+)")
_VERB_CLAUSE = re.compile(r"(?P<subject>(?:an?|the) \w+) (?P<rest>(?!(?:glass|dress|grass|bus|class)\b)[a-z]{3,}s .+)")
_PREPOSITION = re.compile(
    r" (?:in front of|next to|in|on|with|at|near|from|under|behind|through|along|over|into|around|across) "
)
_DETERMINER = re.compile(r"^(?:an?|the|two|three|some|several|many) ")
_MODIFIER = re.compile(r" (?:in|with|wearing|on|of|from|at|holding) ")
_NEEDS_PLACE = re.compile(
    r"(?:\w+ed|standing|sitting|looking|pointing|back|out|up|down|shown|placed|parked|lit|is|are|and|to)$"
)
_PEOPLE = frozenset(("person", "man", "woman", "boy", "girl", "lady", "guy"))
_LOOSE_END_TEXT = "a an the and or then of in on at to for with from by as is are while into near next"
_LOOSE_ENDS = frozenset(_LOOSE_END_TEXT.split())
_STOP_TEXT = _LOOSE_END_TEXT + " was were be being it its his her their there that this some two"
_STOP_WORDS = frozenset(_STOP_TEXT.split())

_COMMAS = f" ,\u060c{UNSPACED_COMMAS}"
_STOPS = re.compile(rf"[;:{re.escape(SPACED_ENDS + UNSPACED_ENDS)}]+(?=\s|$)")

Vector = dict[str, float]


class ExtractiveBackend:
    """Answers every request in this process, with no model; a second attempt would say the same."""

    name = "extractive"
    max_attempts = 1

    def check_ready(self, settings: SummarizerSettings) -> None:
        """Nothing outside this package is needed."""

    def answer(self, requests: Iterable[SummaryRequest], settings: SummarizerSettings) -> Iterator[SummaryAnswer]:
        """One answer a request, in order."""
        for request in requests:
            started_s = time.perf_counter()
            text = extract(request.captions, settings)
            yield SummaryAnswer(
                request_digest=request_digest(request, settings),
                key=request.key,
                source_digest=request.source_digest,
                raw_text=text,
                num_generated_tokens=len(text.split()),
                finish="stop",
                seconds=time.perf_counter() - started_s,
            )


def extract(captions: Sequence[str], settings: SummarizerSettings) -> str:
    """One sentence of at most `max_words` words made of the captions' own clauses; empty without captions.

    It has `min_words` words, or at least `accept_min_words`, wherever the captions hold that many.
    """
    tidy = [text for text in (_tidied(caption) for caption in captions) if text]
    if not tidy:
        return ""
    weigh = _Tfidf(tidy)
    vectors = [weigh(text) for text in tidy]
    centre = _mean(vectors)
    chosen = _distinct(vectors, centre)
    parts = [(tidy[i], *([short] if (short := _shortened(tidy[i])) else [])) for i in chosen]
    sentences = [
        (_cosine(_mean([weigh(text) for text in forms]), centre), fused)
        for count in range(1, min(len(parts), _MAX_PARTS) + 1)
        for picked in itertools.combinations(parts, count)
        for forms in itertools.product(*picked)
        if (fused := fuse(forms))
    ]
    for low in (settings.min_words, settings.accept_min_words):
        fitting = [item for item in sentences if low <= num_words(item[1]) <= settings.max_words]
        if fitting:
            return max(fitting, key=lambda item: item[0])[1]
    # Nothing fits: the best of what is long enough is cut, or everything there is gets joined.
    longer = [item for item in sentences if num_words(item[1]) > settings.max_words]
    best = max(longer, key=lambda item: item[0])[1] if longer else fuse(list(dict.fromkeys(tidy)))
    return _cut(best, settings.max_words)


def _tidied(caption: str) -> str:
    """One clause: no scaffolding such as 'a close up of', no inner full stops."""
    text = _STOPS.sub(",", sanitize_caption(caption)).strip(_COMMAS)
    text = unquoted(text, "'").strip(_COMMAS)
    text = re.sub(r"\s+,|,{2,}", ",", text)
    before = None
    while before != text:
        before, text = text, _SCAFFOLD.sub("", text)
    return text


class _Tfidf:
    """Weights words by how few of the group's captions hold them; vectors have unit length."""

    def __init__(self, texts: Sequence[str]) -> None:
        counts = Counter(word for text in texts for word in set(_words(text)))
        self._idf = {word: 1 + math.log((1 + len(texts)) / (1 + count)) for word, count in counts.items()}
        self._known: dict[str, Vector] = {}

    def __call__(self, text: str) -> Vector:
        if text not in self._known:
            counts = Counter(_words(text))
            weights = {word: (1 + math.log(count)) * self._idf.get(word, 1.0) for word, count in counts.items()}
            self._known[text] = _mean([weights])
        return self._known[text]


def _words(text: str) -> list[str]:
    words = re.findall(r"\w+", text.lower())
    return [word for word in words if word not in _STOP_WORDS] or words


def _mean(vectors: Sequence[Vector]) -> Vector:
    """The direction of the sum, with unit length."""
    total: Vector = {}
    for vector in vectors:
        for word, weight in vector.items():
            total[word] = total.get(word, 0.0) + weight
    length = math.sqrt(sum(weight * weight for weight in total.values())) or 1.0
    return {word: weight / length for word, weight in total.items()}


def _cosine(one: Vector, other: Vector) -> float:
    small, large = (one, other) if len(one) <= len(other) else (other, one)
    # Rounded, so that equal choices tie on every machine and the first in time wins.
    return round(sum(weight * large.get(word, 0.0) for word, weight in small.items()), 9)


def _distinct(vectors: Sequence[Vector], centre: Vector) -> list[int]:
    """Indexes of captions that differ from the ones before them, the most central ones, in time order."""
    kept: list[int] = []
    num_with = Counter(word for vector in vectors for word in vector)
    kept_with: dict[str, list[int]] = {}  # by telling word
    for i, vector in enumerate(vectors):
        telling = _telling_words(vector, num_with)
        near = {j for word in telling for j in kept_with.get(word, ())}
        if all(_cosine(vector, vectors[j]) < _NEAR_REPETITION for j in near):
            kept.append(i)
            for word in telling:
                kept_with.setdefault(word, []).append(i)
    if len(kept) > _MAX_CHOICES:
        kept = sorted(sorted(kept, key=lambda i: -_cosine(vectors[i], centre))[:_MAX_CHOICES])
    return kept


def _telling_words(vector: Vector, num_with: Counter[str]) -> list[str]:
    """The rarest words of a unit vector; two vectors without one of them in common are no near repetitions.

    Let two vectors share words, the rarest of which is telling in one of them no more: all that they share lies in
    the rest of that one, whose length bounds the cosine and is under the limit.
    """
    words = sorted(vector, key=lambda word: (num_with[word], word))
    rest = sum(weight * weight for weight in vector.values())
    for count, word in enumerate(words):
        if rest < (_NEAR_REPETITION - _ROUNDING) ** 2:
            return words[:count]
        rest -= vector[word] * vector[word]
    return words


def _shortened(text: str) -> str | None:
    """`text` without its last prepositional phrase, where what is left still is a clause."""
    places = list(_PREPOSITION.finditer(text))
    if not places:
        return None
    head, tail = text[: places[-1].start()], text[places[-1].end() :]
    if len(head.split()) < 5 or re.search(r"\b(?:is|are|and|to|while|as)\b", tail):
        return None
    has_verb = re.search(r"\b(?:is|are|\w{3,}s)\b", head) is not None
    return head if has_verb and not _NEEDS_PLACE.search(head) else None


def _clause(text: str) -> tuple[str, str, str] | None:
    """Subject, auxiliary (or nothing) and the rest of a simple clause."""
    if (match := _BE_CLAUSE.fullmatch(text)) and len(match["subject"].split()) <= 7:
        return match["subject"], match["verb"], match["rest"]
    match = _VERB_CLAUSE.fullmatch(text)
    return (match["subject"], "", match["rest"]) if match else None


def _same_subject(one: str, other: str) -> bool:
    """Whether two subjects may be the same; two described ones, or groups joined by 'and', never are."""
    if one == other:
        return True
    if " and " in one or " and " in other:
        return False
    (head, *described), (other_head, *other_described) = _MODIFIER.split(one), _MODIFIER.split(other)
    if described and other_described:
        return False
    head, other_head = _DETERMINER.sub("", head), _DETERMINER.sub("", other_head)
    return head == other_head or ("person" in (head, other_head) and {head, other_head} <= _PEOPLE)


def fuse(clauses: Sequence[str]) -> str:
    """Clauses in time order as one sentence that names a repeated subject once."""
    parts: list[str] = []
    subject, auxiliary = None, ""
    for text in clauses:
        clause = _clause(text)
        if clause is None:
            parts.append(text)
            subject, auxiliary = None, ""
            continue
        new_subject, new_auxiliary, rest = clause
        mixed = bool(auxiliary and new_auxiliary and auxiliary != new_auxiliary)
        if subject is not None and not mixed and _same_subject(subject, new_subject):
            parts.append(rest if new_auxiliary in ("", auxiliary) else f"{new_auxiliary} {rest}")
            if _DETERMINER.sub("", subject) == "person":
                subject = new_subject  # 'a person' was the vaguer name of the same one
        else:
            parts.append(text)
            subject = new_subject
        auxiliary = new_auxiliary
    if len(parts) < 2:
        return "".join(parts)
    return ", ".join(parts[:-1]) + (" and then " if len(parts) == 2 else ", and then ") + parts[-1]


def _cut(text: str, max_words: int) -> str:
    words = first_words(text, max_words)
    while len(words) > 1 and words[-1].lower().strip(",") in _LOOSE_ENDS:
        words.pop()
    return " ".join(words).rstrip(_COMMAS)
