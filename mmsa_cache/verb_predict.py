"""``mmsa predict`` and ``evaluate``."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .console import say
from .dataset import read_labels
from .errors import DataError, ModelError, SettingsError
from .features import load_samples
from .predictor import Predictor, load_model
from .runs import find_run, read_config
from .splits import is_cross_validation


def _load(run: str, device: str | None, data: Path | None = None) -> Predictor:
    """From here on nothing is downloaded: what a run asks for must be on this machine."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # read by the hub's client when it is imported, and by us
    return load_model(run, device=device, data=data)


def predict_split(
    run: str, split: str, data: Path | None, device: str | None
) -> list[tuple[str, list[float]]]:
    """(guid, class probabilities) of a split, in the order of its label file."""
    return _load(run, device, data).predict_split(split)


def predict_pair(run: str, text: str | None, image: Path | None, device: str | None) -> list[float]:
    """Class probabilities of one pair, encoded now; one of the two may be missing."""
    model = _load(run, device)
    if (text is None or image is None) and not model.knows_halves:
        say("Note: this model was trained on whole pairs only (modality_dropout = 0).")
    return model.predict_pair(text, image)


def classes_of_run(run: str) -> list[str]:
    """Class names in the order of a run's probabilities."""
    folder = find_run(run)
    names = read_config(folder).get("classes")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelError(f"{folder / 'config.json'} names no classes.")
    return names


def format_predictions(rows: Sequence[tuple[str, list[float]]], classes: Sequence[str]) -> str:
    """``guid,tag`` lines, as the label files have them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["guid", "tag"])
    writer.writerows((guid, classes[p.index(max(p))]) for guid, p in rows)
    return text.getvalue()


def evaluate(run: str, labels: Path, device: str | None) -> dict[str, Any]:
    """Scores a run's predictions on the rows of a label file.

    Rows that the run has seen while training are counted, since figures from them mean little.

    Raises:
        DataError: A row has no label, or no pair in the data.
    """
    import numpy as np

    from fuse.metrics import score
    from fuse.predictions import read_predictions

    classes = classes_of_run(run)
    rows = read_labels(labels, classes=tuple(classes))
    unlabelled = [row.guid for row in rows if row.label is None]
    if unlabelled:
        raise DataError(
            f"{labels}: {len(unlabelled)} row(s) have the label null.",
            "Give a file with labels.",
            unlabelled[:10],
        )
    model = _load(run, device)
    found: dict[str, list[float]] = {}
    training: set[str] = set()
    wanted = {row.guid for row in rows}
    for split in ("train", "test"):
        try:
            guids = {sample.guid for sample in load_samples(model.settings, split)}
        except DataError:
            continue
        if split == "train":
            training = guids
        if wanted & guids:
            found |= dict(model.predict_split(split))
    missing = sorted(wanted - found.keys())
    if missing:
        raise DataError(f"{labels}: {len(missing)} guid(s) are not in the data.", "", missing[:10])
    folder = find_run(run)
    held_out: set[str] = set()
    if not is_cross_validation(model.outer):  # whose model has learned every row
        held_out = set(read_predictions(folder / "predictions.csv", classes).guids)
    truth = np.array([row.label for row in rows], np.int64)
    predicted = np.array([int(np.argmax(found[row.guid])) for row in rows], np.int64)
    seen = sum(row.guid in training and row.guid not in held_out for row in rows)
    if seen:
        say(f"Note: {seen} of these {len(rows)} rows took part in training.")
    return {
        "run": run,
        "rows_seen_in_training": seen,
        "notes": model.notes,
        **score(truth, predicted, classes),
    }


def check_pair(text: str | None, image: Path | None, split: str | None) -> None:
    """``predict`` takes either a split or one post, of which a part may be missing.

    Raises:
        SettingsError: Neither or both are given.
    """
    if (text is None and image is None) == (split is None):
        raise SettingsError(
            "Give either a split or one post to predict.", "--split test, or --text … --image …."
        )
