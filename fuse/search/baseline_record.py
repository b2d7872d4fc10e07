"""What a study keeps of a baseline."""

from __future__ import annotations

from fuse.figures.record import Number, Record

from .held_out import HeldOutRecord

TITLES = {"logistic": "logistic regression", "svc": "RBF support vectors"}


class Baseline(Record):
    """A classical model on the rows and folds of a study's trials."""

    name: str
    """One of `TITLES`."""
    units: list[Number]
    """Score on each fold, as a trial's."""
    tuned: list[dict[str, Number]]
    """What was chosen inside each fold's training rows."""
    seconds: Number
    held_out: HeldOutRecord
    """Of the development rows."""
    outer: HeldOutRecord
    """Of the outer rows: the mean over the folds' models."""
