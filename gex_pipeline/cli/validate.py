"""``gex validate``: a published output measured with models, beside the paper's figures; and its drift."""

from __future__ import annotations

import argparse
from typing import Any

from gex_pipeline import storage
from gex_pipeline.cli.show import say, say_json, say_note, table
from gex_pipeline.progress import LineProgress, shown_by

DRIFT = 5


def command(arguments: argparse.Namespace) -> int:
    """Validate, rewrite the report, show; 5 when a new snapshot is not like what was there before."""
    from gex_pipeline.report.build import build_report
    from gex_pipeline.report.paper import SCORES
    from gex_pipeline.report.validation import num_texts, pair_words
    from gex_pipeline.stages.drift import in_words
    from gex_pipeline.stages.validation import ValidationOptions, validate_output

    options = ValidationOptions(
        clip_model=arguments.clip,
        num_videos=arguments.videos,
        num_texts=arguments.texts,
        max_psi=arguments.max_psi,
        seed=arguments.seed,
    )
    with shown_by(LineProgress()):
        content = validate_output(storage.absolute(arguments.output), options)
    page = build_report(storage.absolute(arguments.output)) if not arguments.no_report else None
    alarms = [row for row in content["drift"] if row["is_alarm"]]
    if arguments.json:
        say_json(content)
    else:
        paper = {name: f"{item.mean:.3f} ± {item.std:.3f}" for name, item in SCORES.items()}
        rows = [
            (*_row(item, pair_words(item["score"])), paper.get(item["score"], "-"), _cut(item, num_texts(item)))
            for item in content["pairs"]
        ]
        rows += [(*_row(item, item["score"]), "-", "-") for item in content["stored"]]
        headings = ("score", "granularity", "samples", "mean ± deviation", "paper", "texts cut")
        table(headings, rows, numbers=(2, 3, 4, 5))
        for row in alarms:
            say(f"DRIFT    {in_words(row)}")
        if content["drift"] and not alarms:
            say(f"drift    {_no_alarm(content['drift'], content['max_psi'])}")
        if page:
            say(f"report   {page}")
    for note in content["notes"]:
        say_note(note)
    return DRIFT if alarms else 0


def _no_alarm(rows: list[dict[str, Any]], max_psi: float) -> str:
    """That nothing drifts, with the largest index found; over the threshold, that chance explains it."""
    largest = max(row["psi"] for row in rows)
    why = f"; over {max_psi:g} only where chance explains it" if largest > max_psi else ""
    return f"none of {len(rows)} quantities, PSI at most {largest:.2f}{why}"


def _row(item: dict[str, Any], words: str) -> tuple[str, ...]:
    found = f"{item['mean']:.3f} ± {item['std']:.3f}" if item["num"] else "-"
    return (words, item["granularity"], f"{item['num']:,}", found)


def _cut(item: dict[str, Any], num_texts: int) -> str:
    """How many texts are longer than CLIP reads, of all that it read for these cosines."""
    return f"{item['num_cut']:,} of {num_texts:,}" if item["num_cut"] else "0"
