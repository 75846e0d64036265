"""How every command of ``gex`` introduces itself: a line in the list, a sentence and an example in its own help."""

from __future__ import annotations

import argparse
from typing import Any


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
