"""The evaluation protocol: which rows train, which select and which judge."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from mmsa_cache.config.sections import MAX_SEED
from mmsa_cache.validation import Table

JOINED = "train+val"
"""The rows of train followed by those of val, which the outer split ``val`` divides."""
_VAL = re.compile(r"val(?:-([1-9]\d{0,8}))?")


def val_rows(kind: str) -> int | None:
    """Number of judging rows of the split val: 500 of ``val-500``, 0 (not known yet) of ``val``.

    None for other outer splits.
    """
    match = _VAL.fullmatch(kind)
    return None if match is None else int(match[1] or 0)


class Protocol(Table):
    """Which rows train, which select and which judge.

    Stored with every study and run: equal protocols on equal data give equal rows.
    """

    version: Literal[1] = 1
    """Version of the rules that draw the rows."""
    outer: str = "report"
    """Rows that only judge, see `mmsa_cache.data.splits.outer_splits`. ``val`` becomes
    ``val-ROWS`` once the data is read."""
    folds: int = Field(default=5, ge=1, le=1000, strict=True)
    """Folds of the other rows; duplicate groups stay together."""
    seeds: int = Field(default=1, ge=1, le=1000, strict=True)
    """Trainings per fold, each with its own seed."""
    seed: int = Field(default=47, ge=0, le=MAX_SEED, strict=True)
    """Seed of splits and trainings."""
    stop: Literal["held-out", "judged"] = "held-out"
    """Rows that select the epoch of a training: its held-out fold, or the ``judged`` rows
    themselves, with all others used for training (the report's way, optimistic)."""

    @property
    def split(self) -> str:
        """The split whose rows are divided, or `JOINED`."""
        return "train" if val_rows(self.outer) is None else JOINED

    @property
    def judging(self) -> str:
        """The split that the outer rows belong to."""
        return "train" if val_rows(self.outer) is None else "val"

    @model_validator(mode="after")
    def _folds_are_used(self) -> Self:
        if self.stop == "judged" and self.folds > 1:
            raise ValueError("--stop judged holds no fold back; give --folds 1")
        return self
