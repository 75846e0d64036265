"""How every command of ``gex`` introduces itself: a line in the list, a sentence and an example in its own help.

And how its numbers are read: what `whole` and `number` make are types for argparse.
"""

from __future__ import annotations

import argparse
import math
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


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """A whole number from `least` to `most`, or on."""
    expected = f"a whole number from {least} {'on' if most is None else f'to {most}'}"

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"expected {expected}, not {text!r}")
        return value

    return read


def number(*, least: float = -math.inf, above: float = -math.inf, below: float = math.inf) -> Callable[[str], float]:
    """A finite number: at least `least`, more than `above`, less than `below`; say what is asked for."""
    bounds = [
        *([f"from {least:g} on"] if math.isfinite(least) else []),
        *([f"above {above:g}"] if math.isfinite(above) else []),
        *([f"below {below:g}"] if math.isfinite(below) else []),
    ]
    expected = f"a number {' and '.join(bounds)}".rstrip()

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and least <= value and above < value < below):
            raise argparse.ArgumentTypeError(f"expected {expected}, not {text!r}")
        return value

    return read
