"""From what a model wrote to the sentence it meant: labels, quotes, reasoning and second sentences taken off.

Only removes; never adds or changes a word. Whether the sentence is any good is decided by the checks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gex_pipeline.summarize.quotes import ALL_MARKS, unquoted

# Control characters but the ends of lines, and marks without width; joiners stay, since emoji and scripts need them.
_UNSEEN = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)|\A.*?</think>", re.DOTALL | re.IGNORECASE)
_SPECIAL = re.compile(r"<\|[^<>|]{0,60}\|>|</?s>", re.IGNORECASE)
_BULLET = re.compile(r"^(?:[-*\u2022\u2013]|\d{1,2}[.)])\s+")
_COURTESY = re.compile(
    r"^(?:sure|certainly|of course|absolutely|okay|ok|yes)(?: thing)?(?:\s*[,!.:;]+\s*|\s+(?=here\b))", re.IGNORECASE
)
_HERE_IS = re.compile(r"^here(?:'s|\u2019s| is| are)\b[^:.]{0,80}:\s*", re.IGNORECASE)
_LABEL = re.compile(
    r"^(?:the\s+|my\s+)?(?:(?:final|short|brief|one|single|1)[- ]?(?:sentence)?\s*)?(?:assistant|summary|caption|answer"
    r"|output|response|description)(?:\s+(?:sentence|is))?\s*[:=]\s*",
    re.IGNORECASE,
)
_SHOW = (
    r"(?:(?:is|are|first|then|mainly)\s+)?(?:shows?|showing|features?|featuring|depicts?|depicting|captures?|presents?"
    r"|portrays?|displays?|describes?|follows?|is about|(?:starts|begins|opens) with)"
)
_META = re.compile(
    r"^(?:(?:in|throughout|over|during) (?:this|the|these) (?:short )?(?:video|clip|scene|footage|sequence)s?\b"
    r"(?: clips?\b)?,?\s*"
    r"|(?:this|the|these|a) (?:short )?(?:video|clip|scene|footage|sequence|montage|caption)s?(?: clips?)?\s+"
    + _SHOW
    + r"\s+(?:that\s+)?(?:us\s+)?|(?:we|you|viewers?) (?:can )?see\s+)",
    re.IGNORECASE,
)
_ABBREVIATION_TEXT = (
    "dr mr mrs ms st jr sr prof vs etc mt ft inc co a.m p.m e.g i.e u.s u.k d.c approx sgt lt col gen capt gov rev sen"
)
_ABBREVIATIONS = frozenset(_ABBREVIATION_TEXT.split())
_BEFORE_NUMBER = frozenset(("no", "nos"))  # 'no. 5' goes on, a man who says no. does not
_DEGREES = frozenset(("ph.d", "m.d"))  # go on in small letters only: 'He has a Ph.D. He teaches'
_MAX_LABELS = 8  # rounds of taking them off one line; each reads it whole, and a server may write a million of them
_LONGEST_ABBREVIATION = 40  # characters that are looked at before a stop
# One try a run of stops: the rest is read once, however long it is.
_END = re.compile(rf"(?<![.!?])[.!?]++([{re.escape(ALL_MARKS)})]*+)(?=\s|\Z)")


@dataclass(frozen=True)
class Candidate:
    """A sentence, and whether its end was seen: one without an end may have been cut by the token limit."""

    text: str
    ended: bool


def clean_summary(raw_text: str) -> Candidate:
    """The first sentence of an answer without label, quotes and final stop; empty when there is none."""
    text = _SPECIAL.sub(" ", _THINKING.sub(" ", _UNSEEN.sub("", raw_text)))
    lines = [stripped for stripped in (_unlabelled(line) for line in text.splitlines()) if stripped]
    # A line of one or two words before a longer one is a heading.
    index = next((i for i, line in enumerate(lines) if len(line.split()) > 2), 0)
    if not lines:
        return Candidate("", ended=False)
    sentence, ended = _first_sentence(_unlabelled(lines[index]))
    sentence = re.sub(r"\s+([,.;!?])", r"\1", " ".join(sentence.split()))
    return Candidate(unquoted(unquoted(sentence).rstrip(".!?;:, ")), ended or index + 1 < len(lines))


def _unlabelled(line: str) -> str:
    """A line without bullet, courtesies, labels and 'the video shows', whatever their order."""
    for _ in range(_MAX_LABELS):
        before = line
        line = unquoted(line)
        for pattern in (_BULLET, _COURTESY, _HERE_IS, _LABEL, _META):
            # A label may stand in quotes or stars; where there is none, they belong to the sentence.
            rest, found = pattern.subn("", line.lstrip(ALL_MARKS + " \t"), count=1)
            if found:
                line = unquoted(rest)
        if line == before:
            break
    return line


def _first_sentence(line: str) -> tuple[str, bool]:
    for end in _END.finditer(line):
        if not _goes_on(line, end):
            return line[: end.start()] + end[1].rstrip(")"), True
    return line, False


def _goes_on(line: str, end: re.Match[str]) -> bool:
    """Whether the sentence goes on behind a stop: that of an abbreviation, or of what is quoted in it."""
    following = line[end.end() :].lstrip()[:1]
    if not following or end[1]:
        return following.islower()
    if line[end.start() : end.end()] != ".":
        return False
    before = line[max(0, end.start() - _LONGEST_ABBREVIATION) : end.start()]
    word = "".join(before.rsplit(None, 1)[-1:]).strip(ALL_MARKS + "(").lower()
    if word in _BEFORE_NUMBER:
        return following.isdigit()
    if word in _DEGREES:
        return not following.isupper()
    return word in _ABBREVIATIONS or (len(word) == 1 and word.isalpha() and word not in "ai")
