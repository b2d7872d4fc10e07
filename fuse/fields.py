"""Types of the fields of a setting."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from fuse.losses.losses import LOSSES
from fuse.models.fusions import FUSIONS
from fuse.models.kernel import KERNEL
from mmsa_cache.names import split_terms

Level = Literal["pooled", "tokens"]
_POOL = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*\.)?([^.+?*]+[?*]?|\*)")


def _pools(value: str) -> str:
    terms = split_terms(value)
    if not all(map(_POOL.fullmatch, terms)) or len(set(terms)) < len(terms):
        raise PydanticCustomError(
            "pools", "pools as in 'mean', 'mean@1+mean' or 'mean+ENCODER.POOL?' are expected"
        )
    return value


Pools = Annotated[str, AfterValidator(_pools)]
"""Terms of `mmsa_cache.names.resolve_pools`, joined by ``+``."""


def _one_of(*names: str) -> AfterValidator:
    def check(value: str) -> str:
        if value not in names:
            raise PydanticCustomError("literal_error", "", {"expected": ", ".join(names)})
        return value

    return AfterValidator(check)


def _sizes(value: str) -> str:
    if not re.fullmatch("([1-9][0-9]{0,4}(-[1-9][0-9]{0,4}){0,31})?", value):
        raise PydanticCustomError("sizes", "sizes as in '1024-256', or nothing, are expected")
    return value


Fusion = Annotated[str, _one_of(*FUSIONS, KERNEL)]
LossName = Annotated[str, _one_of(*LOSSES)]
Positive = Annotated[int, Field(ge=1, le=1_000_000)]
Size = Annotated[int, Field(ge=1, le=65_536)]
"""Size of a layer."""
Sizes = Annotated[str, AfterValidator(_sizes)]
"""Sizes of successive layers; empty: no layer."""
Few = Annotated[int, Field(ge=1, le=1_000)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
