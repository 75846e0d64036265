"""How every command of ``gex`` introduces itself: a line in the list, a sentence and an example in its own help."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

CommandTable = dict[str, tuple[str, str, Callable[[argparse.ArgumentParser], None]]]
"""By name: what a command does, an example, and what adds its arguments."""


def add_command(commands: Any, name: str, text: str, example: str) -> argparse.ArgumentParser:
    """Add a command to argparse's `commands`; `text` says in lower case what it does, `example` is a whole line."""
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return command
