"""``gex assess-summarisers``: candidates against references, as a table, a plot and a recommendation."""

from __future__ import annotations

import argparse

from gex_pipeline import storage
from gex_pipeline.cli.show import reasons, say, say_json, say_note, table
from gex_pipeline.progress import LineProgress, shown_by


def command(arguments: argparse.Namespace) -> int:
    """Run what is not there yet, and show the table."""
    from gex_pipeline.report.assessment_page import SCORE_NAMES, latency_of, tokens_of, write_page
    from gex_pipeline.stages.assessment import assess
    from gex_pipeline.stages.assessment_recipe import load_assessment, read_tasks

    recipe = load_assessment(arguments.file)
    folder = storage.absolute(arguments.out or f"assessment-{arguments.file.stem}")
    tasks, notes = read_tasks(recipe, arguments.tasks)
    for note in notes:
        say_note(note)
    with shown_by(LineProgress()):
        assessment = assess(recipe, tasks, folder)
    page = write_page(assessment.content, assessment.rows, folder)
    if arguments.json:
        say_json(assessment.content)
    else:
        rows = [
            (
                item["name"],
                *(f"{item['scores'][name]['mean']:.3f}" if name in item["scores"] else "-" for name in SCORE_NAMES),
                f"{item['seconds_a_task']:.3g}",
                latency_of(item),
                tokens_of(item),
                f"{item['num_summaries']} of {item['num_tasks']}",
                reasons(item["rejected"], "\n"),
            )
            for item in assessment.content["candidates"]
        ]
        more = ("s a task", "latency s", "tokens a task", "summaries", "rejected")
        table(("candidate", *SCORE_NAMES.values(), *more), rows, numbers=(1, 2, 3, 4, 5, 6, 7, 8))
        found = assessment.content["recommendation"]
        say(f"recommended   {found['candidate'] or 'none'}: {found['why']}")
        say(f"the rule      {found['rule']}")
        say(f"page          {page}")
    failure = assessment.failure(page)
    if failure is not None:
        raise failure
    return 0
