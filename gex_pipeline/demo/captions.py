"""Says in words what a scene shows: a caption for one scene, a one-sentence reference for a whole story.

In: `Scene`s and a `random.Random`. Out: captions of 8 to 15 words and references of 10 to 20, lower case, no full stop
(InternVid's manner). Invariants: a caption names everything that `scenes` draws and nothing else; a reference is a
function of its scenes alone, so captions suffice to write it. Draws nothing, loads nothing heavy.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gex_pipeline.demo.vocabulary import ACTIONS, PATTERNS, PREPOSITIONS, SHAPES, SIZE_WORDS

CAPTION_WORDS = (8, 15)
_MAX_ACTIONS = 4  # that a reference tells: the first three and the last


@dataclass(frozen=True)
class Actor:
    """One coloured shape."""

    shape: str
    color: str
    size: str


@dataclass(frozen=True)
class Backdrop:
    """One textured background."""

    pattern: str
    color: str


@dataclass(frozen=True)
class Scene:
    """What one clip shows."""

    actor: Actor
    action: str
    backdrop: Backdrop
    other: Actor | None = None


def with_article(words: str) -> str:
    """`words` after "a" or "an"."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def caption(scene: Scene, rng: random.Random) -> str:
    """One of the true captions of `scene`, drawn by `rng` from all that keep the word bounds."""
    low, high = CAPTION_WORDS
    fitting = [text for text in _wordings(scene) if low <= len(text.split()) <= high]
    return rng.choice(fitting)


def _wordings(scene: Scene) -> Iterable[str]:
    action = ACTIONS[scene.action]
    subjects = _actor_phrases(scene.actor, sized=action.sized)
    others = _actor_phrases(scene.other) if scene.other else [""]
    does = [phrase.format(o=other) for phrase in action.phrases for other in others]
    wheres = [f"{before} {what}" for before in PREPOSITIONS for what in backdrop_phrases(scene.backdrop)]
    for subject, doing, where in itertools.product(subjects, does, wheres):
        yield f"{subject} {doing} {where}"
        yield f"{where} {subject} {doing}"


def _actor_phrases(actor: Actor, *, sized: bool = True) -> list[str]:
    size_words = SIZE_WORDS[actor.size] if sized else ("",)
    return [
        with_article(f"{size} {actor.color} {noun}".strip())
        for size, noun in itertools.product(size_words, SHAPES[actor.shape])
    ]


def backdrop_phrases(backdrop: Backdrop) -> list[str]:
    """Every way in which a caption names the background."""
    article = "an" if backdrop.color[0] in "aeiou" else "a"
    return [phrase.format(a=article, c=backdrop.color) for phrase in PATTERNS[backdrop.pattern].phrases]


def reference(scenes: Sequence[Scene]) -> str:
    """The sentence that sums up a story of at least four scenes with one main shape."""
    actor = scenes[0].actor
    size = "" if actor.size == "medium" else actor.size
    subject = with_article(f"{size} {actor.color} {SHAPES[actor.shape][0]}".strip())
    told = list(scenes) if len(scenes) <= _MAX_ACTIONS else [*scenes[: _MAX_ACTIONS - 1], scenes[-1]]
    deeds = []
    other_is_known = False
    for scene in told:
        name = ""
        if scene.other is not None:
            name = "it" if other_is_known else with_article(f"{scene.other.color} {SHAPES[scene.other.shape][0]}")
            other_is_known = True
        deeds.append(ACTIONS[scene.action].summary.format(o=name))
    return f"{subject} {', '.join(deeds[:-1])} and {deeds[-1]} over {_where(scenes)}"


def _where(scenes: Sequence[Scene]) -> str:
    backdrops = {PATTERNS[scene.backdrop.pattern].noun: scene.backdrop for scene in reversed(scenes)}
    nouns = list(dict.fromkeys(PATTERNS[scene.backdrop.pattern].noun for scene in scenes))
    if len(nouns) > 2:
        return "changing backgrounds"
    if len(nouns) == 2:
        return " and ".join(with_article(noun) if PATTERNS[backdrops[noun].pattern].article else noun for noun in nouns)
    first = scenes[0].backdrop
    words = f"{first.color} {nouns[0]}"
    return with_article(words) if PATTERNS[first.pattern].article else words
