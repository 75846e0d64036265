"""``gex report``: write the report of a published output again."""

from __future__ import annotations

import argparse

from gex_pipeline import storage
from gex_pipeline.cli.show import say


def command(arguments: argparse.Namespace) -> int:
    """Build the report and say where it is."""
    from gex_pipeline.report.build import build_report

    say(build_report(storage.absolute(arguments.output), num_samples=arguments.samples))
    return 0
