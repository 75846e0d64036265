"""What differs between scripts where texts are joined, cut and counted: ends of sentences, and words without spaces.

Texts in a script that has spaces are counted at them, whatever else they hold.
"""

from __future__ import annotations

import re

# With a space behind them; also Armenian, Arabic, Urdu, Indic, Tibetan, Burmese, Ethiopic and Khmer ones.
SPACED_ENDS = ".!?\u2026\u203c\u2047\u2048\u2049\u0589\u061f\u06d4\u0964\u0965\u0f0d\u104b\u1362\u1367\u17d4\u17d5"
UNSPACED_ENDS = "\u3002\uff01\uff1f\uff0e\uff61\ufe12"  # of Chinese and Japanese, which need none
UNSPACED_COMMAS = "\uff0c\u3001\uff1b\uff1a\uff64"  # and what divides their sentences
CLOSING = "\"'\u201d\u2019)]\u00bb\u203a\u300d\u300f\uff09\uff3d\u3011\u3015\u3009\u300b\uff63"  # may follow an end
_CLOSED = re.escape(CLOSING)
SENTENCE_END = re.compile(  # between two sentences; nothing is lost where a text is split at it
    rf"(?<=[{re.escape(SPACED_ENDS)}])(?=\s)|(?<=[{UNSPACED_ENDS}])(?![{UNSPACED_ENDS}{_CLOSED}]|$)"
    rf"|(?<=[{UNSPACED_ENDS}][{_CLOSED}])(?![{_CLOSED}]|$)"
)

_THIRDS_A_WORD = 3
_CHINESE = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Japanese has them too
_IS_CHINESE = re.compile(f"[{_CHINESE}]")
# Thai, Lao, Tibetan and Burmese, Khmer, kana.
_UNSPACED = re.compile(f"[\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f{_CHINESE}]")


def num_words(text: str) -> int:
    """Words at spaces; in scripts without them three letters are a word, and so are one and a half Chinese characters.

    Marks above, below and beside a letter count nothing. The figures are near a word of each, and near its English one:
    1000 Chinese characters are about 650 English words, 1000 signs of Japanese about 450.
    """
    if not _UNSPACED.search(text):
        return len(text.split())
    return sum(map(_words_of, text.split()))


def first_words(text: str, limit: int) -> list[str]:
    """What stands between the spaces of a text, up to `limit` words; one that is longer than the room is cut."""
    kept = []
    for part in text.split():
        num = _words_of(part)
        if num > limit:
            kept += [_cut(part, limit)] if limit else []
            break
        kept.append(part)
        limit -= num
    return kept


def _words_of(part: str) -> int:
    """Words of a part without spaces; it is one where nothing in it says more."""
    return max(1, -(-sum(map(_thirds, part)) // _THIRDS_A_WORD))


def _thirds(char: str) -> int:
    if not char.isalpha() or not _UNSPACED.match(char):
        return 0
    return 2 if _IS_CHINESE.match(char) else 1


def _cut(part: str, limit: int) -> str:
    """The beginning of at most `limit` words; it ends at a comma where one is in its second half."""
    thirds = _THIRDS_A_WORD * limit
    for end, char in enumerate(part):
        thirds -= _thirds(char)
        if thirds < 0:
            comma = max(part.rfind(sign, 0, end) for sign in UNSPACED_COMMAS)
            return part[: comma if 2 * comma >= end else end]
    return part
