"""The record of a baseline in a study."""

from __future__ import annotations

from fuse.figures.record import Number, Record

from .held_out import HeldOutRecord

TITLES = {"logistic": "logistic regression", "svc": "RBF support vectors"}


class Baseline(Record):
    """A classical model on the rows and folds of a study's trials."""

    name: str
    """One of `TITLES`."""
    units: list[Number]
    """Score on each fold, as of a trial."""
    tuned: list[dict[str, Number]]
    """Parameters that were tuned inside each fold's training rows."""
    seconds: Number
    held_out: HeldOutRecord
    """Of the development rows."""
    outer: HeldOutRecord
    """Of the outer rows, averaged over the folds' models."""
