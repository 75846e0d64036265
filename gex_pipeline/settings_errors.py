"""Files of settings: a TOML file in, its tables out; and what is wrong with one, in one sentence.

Pydantic's findings become key, value and expectation. Imports nothing else of weight.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from gex_pipeline.errors import RecipeError

_WORDS = r"(key|token|secret|sig|signature|password|credential)s?"
_SECRET_IN_URI = re.compile(
    rf"\bs3://[^/]*:[^@]*@|\bs3://[^/]*@|://[^/@]*:(?!\d+/)[^@]*@|://.*[?&][\w.-]*{_WORDS}=", re.I
)
_SECRET_NAME = re.compile(rf"(.*_)?{_WORDS}", re.I)


def check_no_credentials(content: Any, path: tuple[str, ...] = ()) -> None:
    """Refuse the tables of a recipe in which a URI, or an argument of an engine, is a secret. It is not repeated.

    Recipes are stored with what is made by them, and what is wrong with a value is said with the value.

    Raises:
        RecipeError: the key that holds one.
    """
    if isinstance(content, Mapping):
        for key, value in content.items():
            check_no_credentials(value, (*path, str(key)))
    elif isinstance(content, (list, tuple)):
        for value in content:
            check_no_credentials(value, path)
    elif isinstance(content, str):
        instead = "recipes are stored in outputs, so put them in the environment"
        if _SECRET_IN_URI.search(content):
            raise RecipeError(f"{'.'.join(path)}: a URI carries credentials; {instead}")
        if "engine" in path[:-1] and _SECRET_NAME.fullmatch(path[-1]):
            raise RecipeError(f"{'.'.join(path)}: looks like credentials; {instead} (HF_TOKEN for a model's hub)")


def read_toml(path: str | Path, what: str = "") -> dict[str, Any]:
    """The tables of a file; `what` it is called in a sentence.

    Raises:
        RecipeError: there is none, it cannot be read, or it is no TOML.
    """
    name = f"{what} {str(path)!r}".lstrip()
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"{name} does not exist") from error
    except OSError as error:
        raise RecipeError(f"{name} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not a TOML file: {error}") from error


def explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """All findings; an unknown key with the known one that was probably meant. `prefix` stands before every key."""
    lines = []
    for item in error.errors():
        key = (prefix + ".".join(_key_path(item["loc"]))).rstrip(".")
        if item["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key{_nearest(item['loc'], model)}")
        elif item["type"] == "missing":
            lines.append(f"{key}: missing; expected a value")
        elif item["type"] == "value_error":
            lines.append(f"{key}: {item['msg'].removeprefix('Value error, ')}".removeprefix(": "))
        else:
            lines.append(f"{key} = {item['input']!r}: {item['msg'][0].lower()}{item['msg'][1:]}")
    return "; ".join(lines)


def _key_path(location: tuple[int | str, ...]) -> list[str]:
    """The keys as the recipe has them: without the names pydantic adds for the branches of a union."""
    parts = [str(part) for part in location]
    return parts[:2] + parts[3:] if parts[:2] in (["source", "media"], ["source", "clips"]) else parts


def _nearest(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """Name the known key that an unknown one was probably meant to be."""
    found: Any = model
    for part in location[:-1]:
        found = _inner(found, str(part))
    models = [one for one in (found, *get_args(found)) if _is_model(one)]  # of "a table or nothing", the table
    if len(models) != 1:
        return ""
    known = [field.alias or name for name, field in models[0].model_fields.items() if not field.exclude]
    close = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.4)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known keys: {', '.join(known)}"


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _inner(annotation: Any, part: str) -> Any:
    """The type one step further down: of a model's field, of a dictionary's values, of a union's branch."""
    if _is_model(annotation):
        return annotation.model_fields[part].annotation if part in annotation.model_fields else None
    if get_origin(annotation) is dict:
        return get_args(annotation)[1]
    branches = [branch for branch in get_args(annotation) if "kind" in getattr(branch, "model_fields", {})]
    return next((branch for branch in branches if part in get_args(branch.model_fields["kind"].annotation)), None)
