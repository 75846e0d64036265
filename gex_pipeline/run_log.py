"""A run as JSON lines: what stages and shards did, in a file that the variable ``GEX_LOG_JSON`` names ("-": stderr).

Every line has time, level, message, run, stage, granularity and shard (null where there is none), and what else is
known of it. The only handler and formatter of the project; without the variable nothing is written.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from typing import Any

from gex_pipeline.errors import GexError

VARIABLE = "GEX_LOG_JSON"
_LOGGER = logging.getLogger("gex")
_ALWAYS = ("run", "stage", "granularity", "shard")


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record that `write` made."""
        facts: dict[str, Any] = getattr(record, "facts", {})
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "message": record.getMessage()}
        return json.dumps({**line, **dict.fromkeys(_ALWAYS), **facts}, ensure_ascii=False, default=str)


def install() -> None:
    """Begin to write where the variable says; once a process, again where it names another file.

    Raises:
        GexError: the file cannot be written.
    """
    target = os.environ.get(VARIABLE, "")
    if [handler.name for handler in _LOGGER.handlers] == ([target] if target else []):
        return
    for old in list(_LOGGER.handlers):
        _LOGGER.removeHandler(old)
        old.close()
    if target:
        handler = logging.StreamHandler() if target == "-" else _file_handler(target)
        handler.name = target
        handler.setFormatter(JsonLines())
        _LOGGER.addHandler(handler)
        _LOGGER.setLevel(logging.INFO)
        _LOGGER.propagate = False


def _file_handler(path: str) -> logging.FileHandler:
    try:
        return logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        found = f"{VARIABLE} names {path!r}, which cannot be written: {error.strerror}"
        raise GexError(f"{found}; name a file in a folder that is there") from error


def write(message: str, *, level: int = logging.INFO, **facts: Any) -> None:
    """One line, if anybody wants lines."""
    if _LOGGER.handlers:
        _LOGGER.log(level, message, extra={"facts": facts})
