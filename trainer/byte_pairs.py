"""A vocabulary of byte pairs in CLIP's form, learned from texts: texts in; tokens with their numbers and merges out.

The same texts give the same vocabulary on every machine and in every process, whatever their order. Pairs are counted
anew only in the words that a merge has changed, so thousands of merges over tens of thousands of words take seconds.
"""

from __future__ import annotations

import heapq
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable

Pair = tuple[str, str]

START, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|[^\s\w]+|_+")  # as CLIP's tokenizer parts a text


def learn_byte_pairs(texts: Iterable[str], num_merges: int) -> tuple[dict[str, int], list[Pair]]:
    """Numbers of all tokens, and the merges in their order; fewer than `num_merges` where no pair is left.

    Words are in lower case; punctuation and digits are words of their own.
    """
    from tokenizers import pre_tokenizers

    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    counts = Counter(word for text in texts for word in _WORDS.findall(text.lower()))
    words: list[list[str]] = []
    weights: list[int] = []
    for word, count in sorted(counts.items()):
        letters = "".join(piece for piece, _ in to_bytes.pre_tokenize_str(word))
        words.append([*letters[:-1], letters[-1] + _WORD_END])
        weights.append(count)
    merges = _merges(words, weights, num_merges)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(byte + _WORD_END for byte in alphabet), *(first + second for first, second in merges)]
    # two merges may lead to one token
    return {token: number for number, token in enumerate([*dict.fromkeys(tokens), START, END])}, merges


def _merges(words: list[list[str]], weights: list[int], num_merges: int) -> list[Pair]:
    """The most frequent pair, again and again; of equally frequent ones the first by its letters."""
    counts: Counter[Pair] = Counter()
    places: defaultdict[Pair, set[int]] = defaultdict(set)
    for number, word in enumerate(words):
        for pair in itertools.pairwise(word):
            counts[pair] += weights[number]
            places[pair].add(number)
    queue = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(queue)
    merges: list[Pair] = []
    while queue and len(merges) < num_merges:
        count, pair = heapq.heappop(queue)
        if -count != counts[pair] or not count:
            continue  # its count has changed since; the queue holds it with the new one too
        merges.append(pair)
        for changed in _apply(pair, words, weights, counts, places):
            if counts[changed]:
                heapq.heappush(queue, (-counts[changed], changed))
    return merges


def _apply(
    pair: Pair, words: list[list[str]], weights: list[int], counts: Counter[Pair], places: dict[Pair, set[int]]
) -> set[Pair]:
    """Join a pair in all words that have it; the pairs whose counts are other ones now."""
    changed: set[Pair] = set()
    for number in sorted(places.pop(pair)):
        before = words[number]
        after = _joined(before, pair)
        if len(after) == len(before):
            continue  # an earlier merge took it apart
        words[number] = after
        for sign, pieces in ((-1, before), (1, after)):
            for found in itertools.pairwise(pieces):
                counts[found] += sign * weights[number]
                changed.add(found)
                if sign > 0:
                    places[found].add(number)
    counts[pair] = 0
    return changed


def _joined(pieces: list[str], pair: Pair) -> list[str]:
    joined: list[str] = []
    for piece in pieces:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined
