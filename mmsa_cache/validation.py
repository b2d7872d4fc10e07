"""What pydantic finds wrong with values, as this project's errors."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from .errors import MmsaError, SettingsError

M = TypeVar("M", bound=BaseModel)
_LONGEST = 200
"""Characters of a received value that are shown."""


def validated(
    model: type[M],
    values: object,
    message: str,
    hint: str = "Correct them all.",
    error: type[MmsaError] = SettingsError,
) -> M:
    """Values as a model.

    Args:
        model: A pydantic model.
        values: Whatever was read or given.
        message: What the values are, and where they come from.
        hint: What the user can do about them.
        error: Kind of the error.

    Raises:
        MmsaError: Of the given kind, with every mistake at once.
    """
    try:
        return model.model_validate(values)
    except ValidationError as found:
        raise error(message, hint, problems_of(found)) from None


def problems_of(error: ValidationError) -> list[str]:
    """A line a mistake: ``table.key: what is wrong (received …)``."""
    lines = []
    for item in error.errors(include_url=False, include_context=False):
        where = ".".join(map(str, item["loc"]))
        if item["type"] in ("value_error", "assertion_error"):
            text = item["msg"].partition(", ")[2]  # the text that a validator raised
        elif item["type"] in ("extra_forbidden", "missing"):
            text = {"extra_forbidden": "unknown key", "missing": "missing"}[item["type"]]
        else:
            received = repr(item["input"])
            shown = received if len(received) <= _LONGEST else f"{received[:_LONGEST]}…"
            text = f"{item['msg']} (received {shown})"
        lines.append(f"{where}: {text}" if where else text)
    return lines
