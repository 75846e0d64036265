"""``gex report``: write the report of a published output again."""

from __future__ import annotations

import argparse

from gex_pipeline import storage
from gex_pipeline.cli.show import say


def command(arguments: argparse.Namespace) -> int:
    """Build the report and say where it is."""
    from gex_pipeline.report.build import build_report

    output = arguments.output
    output_uri = str(storage.local_path(output)) if storage.is_local(output) else output
    say(build_report(output_uri, num_samples=arguments.samples))
    return 0
