"""Validation by pydantic with the errors of this project."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from mmsa_cache.errors import MmsaError, SettingsError
from mmsa_cache.files.paths import is_valid_path
from mmsa_cache.names import suggest, suggest_or_list

M = TypeVar("M", bound=BaseModel)
_LONGEST = 200
"""Most characters shown of a received value."""


class Table(BaseModel):
    """A frozen model that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _check_path(path: Path) -> Path:
    if not is_valid_path(path):
        raise ValueError("no file can have this name")
    return path


AnyPath = Annotated[Path, AfterValidator(_check_path)]
"""A path that a file could have; the file need not exist."""


def match_pattern(form: str, pattern: str) -> AfterValidator:
    """Accepts texts that match a pattern; ``form`` describes it in the error."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"write {form}")
        return value

    return AfterValidator(check)


def validate(
    model: type[M],
    values: object,
    message: str,
    hint: str = "Correct them all.",
    error: type[MmsaError] = SettingsError,
    context: Mapping[str, object] | None = None,
) -> M:
    """Validates values as a model.

    Args:
        model: A pydantic model.
        values: Values of any type.
        message: Message of the error.
        hint: Hint of the error.
        error: Class of the error.
        context: For the model's validators.

    Raises:
        MmsaError: Of the given class, with all mistakes.
    """
    try:
        return model.model_validate(values, context=context)
    except ValidationError as invalid:
        raise error(message, hint, describe_errors(invalid, model)) from None


def describe_errors(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line for each mistake: ``table.key: what is wrong``.

    Args:
        error: From pydantic.
        model: The validated model, for names similar to an unknown key.
    """
    lines = []
    for item in error.errors(include_url=False):
        where = ".".join(map(str, item["loc"]))
        if item["type"] in ("value_error", "assertion_error"):
            text = item["msg"].partition(", ")[2]  # the text that a validator raised
        elif item["type"] == "missing":
            text = "missing"
        elif item["type"] == "extra_forbidden":
            *table, key = item["loc"]
            text = f"unknown key{suggest_or_list(str(key), _keys_at(model, (*table,)))}"
        else:
            text = describe_error(item)
        lines.append(f"{where}: {text}" if where else text)
    return lines


def _keys_at(model: type[BaseModel], where: tuple[int | str, ...]) -> Iterable[str]:
    """Keys of the nested model at a location; none if there is no such model."""
    for part in where:
        field = model.model_fields.get(str(part))
        kind = field.annotation if field is not None else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return ()
        model = kind
    return model.model_fields


_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "finite": "a finite number",
}
_BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "from"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "up to"),
}


def describe_error(item: ErrorDetails) -> str:
    """Describes one mistake: ``VALUE, valid: NAME, NAME`` or ``VALUE, … is expected``."""
    kind, context, received = item["type"], item.get("ctx", {}), repr(item["input"])
    shown = received if len(received) <= _LONGEST else f"{received[:_LONGEST]}…"
    if kind == "literal_error":
        valid = context["expected"].replace("'", "").replace(" or ", ", ").removeprefix(", ")
        return f"{shown}{suggest(str(item['input']), valid.split(', '))}, valid: {valid}"
    if kind in _BOUNDS:
        key, relation = _BOUNDS[kind]
        return f"{shown}, a number {relation} {context[key]:g} is expected"
    expected = _KINDS.get(kind.partition("_")[0])
    if expected is None:
        return f"{shown}, {item['msg']}"
    if kind.endswith("_type"):
        shown = f"{shown} is {type(item['input']).__name__}"
    return f"{shown}, {expected} is expected"
