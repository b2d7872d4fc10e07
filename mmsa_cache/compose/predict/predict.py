"""``mmsa predict``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fuse.figures.calibration import Decide
from mmsa_cache.console import say
from mmsa_cache.errors import SettingsError
from mmsa_cache.escaping import csv_text
from mmsa_cache.json_value import JsonObject

from ..session.path_policy import NO_OVERRIDES, RunOverrides
from .predictor import load_predictor

WHOLE_PAIRS = "Note: this model was trained on whole pairs only (modality_dropout = 0)."


PredictedRow = tuple[str, str | None, list[float] | None]
"""Guid, predicted class, probabilities; the last two are None for a bad row."""


def row_as_json(classes: list[str], row: PredictedRow) -> JsonObject:
    """``guid``, ``tag`` and ``probabilities`` by class."""
    guid, tag, probabilities = row
    by_class = None if probabilities is None else dict(zip(classes, probabilities, strict=True))
    return {"guid": guid, "tag": tag, "probabilities": by_class}


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """What to predict: a split, or one post, which may lack its text or its picture."""

    run: str
    """Name or folder of a run or an export."""
    split: str | None = None
    text: str | None = None
    image: Path | None = None
    overrides: RunOverrides = NO_OVERRIDES
    decide: Decide | None = None
    """Decision rule; default: the run's."""


@dataclass(frozen=True, slots=True)
class PredictedRows:
    """Class probabilities of posts."""

    classes: list[str]
    rows: list[tuple[str, list[float]]]
    """Guid, probabilities in the order of the classes."""
    tags: list[str]
    """The predicted class of each row."""

    def as_json(self) -> list[JsonObject]:
        """`row_as_json` of each row."""
        return [
            row_as_json(self.classes, (guid, tag, probabilities))
            for (guid, probabilities), tag in zip(self.rows, self.tags, strict=True)
        ]

    def as_csv(self) -> str:
        """``guid,tag`` lines, as the label files have them; see `mmsa_cache.escaping.csv_text`."""
        rows = ((guid, tag) for (guid, _), tag in zip(self.rows, self.tags, strict=True))
        return csv_text([("guid", "tag"), *rows])


def predict(request: PredictRequest) -> PredictedRows:
    """Predicts the rows of a split in the order of its label file, or one post, named ``pair``.

    Raises:
        SettingsError: Neither a split nor a post is given, or both.
        ModelError: The run cannot be loaded.
        DataError: The posts cannot be read.
    """
    text, image = request.text, request.image
    if (text is None and image is None) == (request.split is None):
        raise SettingsError(
            "Give either a split, one post, or a file of posts to predict.",
            "--split test, --text … --image …, or --data FILE --out PREDICTIONS.csv.",
        )
    model = load_predictor(request.run, request.overrides, request.decide)
    if request.split is not None:
        rows = model.predict_split(request.split)
    else:
        if (text is None or image is None) and not model.accepts_missing_modality:
            say(WHOLE_PAIRS)
        rows = [("pair", model.predict_pair(text, image))]
    return PredictedRows(model.classes, rows, model.decide([p for _, p in rows]))
