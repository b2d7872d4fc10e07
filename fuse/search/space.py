"""The values that a setting's fields may have."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from fuse.losses.acb import MARGINS, STATISTICS
from fuse.losses.losses import LOSSES
from fuse.models.attention_fusions import DIRECTIONS
from fuse.models.fusions import FUSIONS
from fuse.models.kernel import KERNEL
from fuse.models.modality import MODALITIES
from fuse.models.projection import NORMS, POOLINGS
from fuse.setting import Setting
from mmsa_cache.errors import SettingsError

# Names that a value must be among, where a setting itself does not say so.
CHOICES: dict[str, tuple[Any, ...]] = {
    "fusion": (*FUSIONS, KERNEL),
    "loss": LOSSES,
    "statistics": STATISTICS,
    "margin": MARGINS,
    "modality": MODALITIES,
    "pooling": POOLINGS,
    "text_pooling": ("", *POOLINGS),
    "image_pooling": ("", *POOLINGS),
    "directions": DIRECTIONS,
    "norm": NORMS,
}

TYPES: dict[str, Any] = typing.get_type_hints(Setting)


def value_problem(key: str, value: Any) -> str | None:
    """What is wrong with a value of a setting's field, if anything."""
    if not _fits(value, TYPES[key]):
        return f"{value!r} is {type(value).__name__}, {_type_name(TYPES[key])} is expected"
    if key in CHOICES and value not in CHOICES[key]:
        return f"{value!r}, valid: {', '.join(map(str, CHOICES[key]))}"
    try:
        Setting(**{key: value})
    except SettingsError as error:
        own = [p.removeprefix(f"{key}: ") for p in error.problems if p.startswith(f"{key}: ")]
        return own[0] if own else error.message
    return None


def restored(values: Mapping[str, Any]) -> Setting:
    """A setting from stored values, each checked as in a study file.

    Raises:
        ValueError: Names what does not fit this version's settings.
    """
    problems = [f"{key}: unknown" for key in values if key not in TYPES]
    for key in values.keys() & TYPES.keys():
        problem = value_problem(key, values[key])
        problems += [f"{key}: {problem}"] if problem else []
    if problems:
        raise ValueError("; ".join(sorted(problems)))
    return Setting(**values)


def _fits(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return any(_fits(value, part) for part in typing.get_args(kind))
    if typing.get_origin(kind) is typing.Literal:
        return value in typing.get_args(kind)
    if kind in (int, float):  # True is an int to Python, not to a study
        numbers = (int,) if kind is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool)
    return not isinstance(kind, type) or isinstance(value, kind)


def _type_name(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    if typing.get_origin(kind) is typing.Literal:
        return f"one of {', '.join(map(repr, typing.get_args(kind)))}"
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        parts: Iterable[Any] = typing.get_args(kind)
        return " or ".join(_type_name(part) for part in parts if part is not type(None))
    return names.get(kind, str(kind))
