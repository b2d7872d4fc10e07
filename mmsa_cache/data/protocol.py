"""How the rows of a data set are divided among training, choice and judgement."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from mmsa_cache.config.sections import MAX_SEED
from mmsa_cache.validation import Table

JOINED = "train+val"
"""The rows of train, then those of val: what the outer split ``val`` divides."""
_VAL = re.compile(r"val(?:-([1-9]\d{0,8}))?")


def val_rows(kind: str) -> int | None:
    """How many rows of the split val judge: of ``val-500`` 500, of ``val`` 0 as it is not known.

    None where an outer split is another one.
    """
    match = _VAL.fullmatch(kind)
    return None if match is None else int(match[1] or 0)


class Protocol(Table):
    """Which rows train, which choose and which judge.

    Stored with every study and every run: equal protocols on equal data give equal rows.
    """

    version: Literal[1] = 1
    """Of the rules that draw the rows."""
    outer: str = "report"
    """Rows that only judge, see `mmsa_cache.data.splits.outer_splits`. ``val`` alone becomes
    ``val-ROWS`` where the data is known."""
    folds: int = Field(default=5, ge=1, le=1000, strict=True)
    """Folds of the other rows; duplicate groups stay together."""
    seeds: int = Field(default=1, ge=1, le=1000, strict=True)
    """Trainings a fold, each under a seed of its own."""
    seed: int = Field(default=47, ge=0, le=MAX_SEED, strict=True)
    """Seed of splits and trainings."""
    stop: Literal["held-out", "judged"] = "held-out"
    """Rows that choose the epoch of a training: its held-out fold, or the ``judged`` rows
    themselves, all others being learned from (the report's way, optimistic)."""

    @property
    def split(self) -> str:
        """The split, or `JOINED`, whose rows are divided."""
        return "train" if val_rows(self.outer) is None else JOINED

    @property
    def judging(self) -> str:
        """The split that the outer rows are of."""
        return "train" if val_rows(self.outer) is None else "val"

    @model_validator(mode="after")
    def _folds_are_used(self) -> Self:
        if self.stop == "judged" and self.folds > 1:
            raise ValueError("--stop judged holds no fold back; give --folds 1")
        return self
