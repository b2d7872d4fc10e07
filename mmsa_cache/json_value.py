"""JSON as types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"
"""What JSON holds, to be read."""
JsonObject: TypeAlias = dict[str, Json]


def object_at(value: Json, *keys: str) -> Mapping[str, Json]:
    """The object that lies at keys inside each other; of none the value itself.

    Raises:
        ValueError: There is none.
    """
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping):
        raise ValueError(f"it holds no object {'.'.join(keys)}" if keys else "it is no JSON object")
    return value
