from __future__ import annotations

from pathlib import Path

import jinja2
import pytest

from gex_pipeline.errors import GexError
from gex_pipeline.summarize.chat_template import chat_template_text
from gex_pipeline.summarize.settings import SummarizerSettings

TURNS = [
    {"role": "system", "content": "RULES"},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "yo"},
    {"role": "user", "content": "more"},
]


def settings(model: str, chat_template: str | None = None) -> SummarizerSettings:
    return SummarizerSettings(backend="vllm", model=model, chat_template=chat_template)


def test_vicuna_gets_our_template_since_its_tokenizer_has_none() -> None:
    text = chat_template_text(settings("lmsys/vicuna-13b-v1.5"))
    assert text is not None
    rendered = jinja2.Template(text).render(messages=TURNS, eos_token="</s>", add_generation_prompt=True)
    assert rendered == "RULES USER: hi ASSISTANT: yo</s>USER: more ASSISTANT:"


def test_vicuna_without_rules_gets_the_preamble_it_was_trained_with() -> None:
    text = chat_template_text(settings("vicuna-7b"))
    assert text is not None
    rendered = jinja2.Template(text).render(messages=TURNS[1:2], eos_token="</s>", add_generation_prompt=True)
    assert rendered.startswith("A chat between a curious user and an artificial intelligence assistant.")
    assert rendered.endswith(" USER: hi ASSISTANT:")


def test_any_other_model_keeps_its_own_template() -> None:
    assert chat_template_text(settings("org/name")) is None


def test_a_template_is_a_name_a_file_or_its_own_text(tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text("{{ messages[0] }}")
    assert chat_template_text(settings("org/name", str(file))) == "{{ messages[0] }}"
    assert chat_template_text(settings("org/name", "{{ x }}")) == "{{ x }}"
    assert chat_template_text(settings("org/name", "vicuna_v1.5")) == chat_template_text(settings("vicuna"))


def test_an_unknown_template_is_named_with_the_known_ones() -> None:
    with pytest.raises(GexError, match=r"chat_template 'vicuna' is neither .* one of: vicuna_v1\.5"):
        chat_template_text(settings("org/name", "vicuna"))


def test_a_template_that_is_written_anew_is_read_anew(tmp_path: Path) -> None:
    """A process that serves flows lives longer than a template stays the same."""
    file = tmp_path / "mine.jinja"
    file.write_text("{{ messages[0] }}")
    assert chat_template_text(settings("org/name", str(file))) == "{{ messages[0] }}"
    file.write_text("Once more: {{ messages[0] }}")
    assert chat_template_text(settings("org/name", str(file))) == "Once more: {{ messages[0] }}"
