"""Types of JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"
"""A JSON value, read-only."""
JsonObject: TypeAlias = dict[str, Json]


def object_at(value: Json, *keys: str) -> Mapping[str, Json]:
    """The nested object at a path of keys; without keys the value itself.

    Raises:
        ValueError: There is no object.
    """
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping):
        raise ValueError(f"it holds no object {'.'.join(keys)}" if keys else "it is no JSON object")
    return value
