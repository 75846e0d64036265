"""Which Jinja template turns messages into a prompt, where it is not the model's own.

Templates of ours lie in `chat_templates/`. They write no token of sequence start: the tokenizer adds
that one, and a second one would change the model's answers.
"""

from __future__ import annotations

import functools
from pathlib import Path

from gex_pipeline.errors import GexError
from gex_pipeline.summarize.settings import SummarizerSettings

_FOLDER = Path(__file__).parent / "chat_templates"
_VICUNA = "vicuna_v1.5"


def chat_template_text(settings: SummarizerSettings) -> str | None:
    """The template's text as it is now; None means the model's own.

    Raises:
        GexError: the setting is neither a template of ours, nor a file, nor Jinja text.
    """
    name = settings.chat_template
    if name is None and "vicuna" in (settings.model or "").rstrip("/").rpartition("/")[2].lower():
        name = _VICUNA  # its tokenizer carries none, and engines no longer assume one
    return None if name is None else _text(name)


def is_file_name(chat_template: str) -> bool:
    """Whether the setting can only be a file: it is no Jinja text and names none of ours."""
    return not _is_jinja(chat_template) and not (_FOLDER / f"{chat_template}.jinja").is_file()


def _is_jinja(chat_template: str) -> bool:
    return "{{" in chat_template or "{%" in chat_template


def _text(name: str) -> str:
    if _is_jinja(name):
        return name
    for path in (_FOLDER / f"{name}.jinja", Path(name).expanduser()):
        if path.is_file():
            # Asked for with every request, while a process that serves flows outlives many a template.
            stamp = path.stat()
            return _read(path, stamp.st_mtime_ns, stamp.st_size)
    known = ", ".join(sorted(path.stem for path in _FOLDER.glob("*.jinja")))
    raise GexError(f"chat_template {name!r} is neither a file, nor Jinja text, nor one of: {known}")


@functools.lru_cache(maxsize=16)
def _read(path: Path, _modified_ns: int, _num_bytes: int) -> str:
    return path.read_text(encoding="utf-8")
